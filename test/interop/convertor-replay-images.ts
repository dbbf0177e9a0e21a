import assert from "node:assert/strict";
import { stored, WHY, type Replay } from "./convertor-replay-row.ts";
import { parseDocument, type Documents } from "./convertor-replay-shape.ts";

/** Conversions without a database, seen from the registry. */
const CONVERSIONS: readonly Replay[] = [
  ...["auth-ok", "digest-input", "mtls-certdir", "mtls-clientcert", "tls-certdir", "tls-insecure", "tls-rootca", "verbose-obd"].map(
    (name): Replay => ({ name, like: "obd-small-oci" }),
  ),
  ...["multi-conc0", "multi-conc1"].map((name): Replay => ({ name, like: "obd-multi-oci" })),
  ...["obd-small-oci", "obd-small-oci-oci", "obd-small-docker", "obd-small-docker-oci", "obd-hardlink-lower"].map((name): Replay => ({
    name,
  })),
  ...["obd-multi-oci", "obd-multi-oci-oci", "obd-multi-docker", "obd-multi-docker-oci", "obd-multi-nested", "obd-multi-noplatform"].map(
    (name): Replay => ({ name }),
  ),
  ...["all", "nozstd", "duplayer", "emptyonly", "nolayers", "zstd-as-gzip"].map((name): Replay => ({ name: `obd-mixed-${name}` })),
  { name: "obd-mixed-badtar", says: /tar/ },
  { name: "obd-mixed-trunctar", says: /tar/ },
  { name: "obd-mixed-fewdiffids", says: /diff ID/i, differs: [{ exit: 1, reason: WHY.fewDiffIds }] },
  { name: "obd-mixed-wrongdiffid", says: /diff ID/i, differs: [{ exit: 1, reason: WHY.wrongDiffIds }] },
  { name: "obd-mkfs-false" },
  ...["obd-vsize-1", "obd-vsize-16", "obd-vsize-256", "obd-disable-sparse"].map((name): Replay => ({ name })),
  {
    name: "obd-multi-attest",
    differs: [{ result: "checked", reason: WHY.attestations }],
    check: ({ documents }) => assertAttestationIsKept(documents),
  },
  { name: "obd-multi-attest", variant: "without attestations", extra: ["--drop-attestations"] },
  { name: "um022-reserve", sequence: "umask", umask: "022", like: "obd-small-docker" },
  withUmask("obd-umask077"),
  withUmask("um077-reserve"),
  { name: "same-tag", says: /--force/, differs: [{ exit: 2, reason: WHY.force }] },
  { name: "same-tag", variant: "with --force", sequence: "same-tag", extra: ["--force"] },
  {
    name: "same-tag-again",
    sequence: "same-tag",
    extra: ["--force"],
    differs: [{ result: "checked", reason: WHY.converted }],
    says: /converted already/,
  },
  {
    name: "obd-of-obd",
    prepare: ["-r", "{docker}/small-oci", "-i", "v1", "-o", "v1_obd"],
    differs: [{ result: "checked", reason: WHY.converted }],
    says: /converted already/,
    check: async ({ stage, played, digest }) => {
      assert.equal(digest, (await stage.documents(stored(played), "v1_obd")).digest);
    },
  },
  {
    name: "obd-of-toci",
    differs: [{ result: "checked", reason: WHY.converted }],
    says: /converted already/,
    check: async ({ stage, digest }) => assert.equal(digest, await stage.sourceDigest("small-oci-v1_toci_oci")),
  },
];

/** The attestation stays in its place, and names the converted image. */
function assertAttestationIsKept(documents: Documents | undefined): void {
  const { manifests = [] } = parseDocument(documents?.get("top") ?? "{}");
  assert.equal(manifests.length, 3);
  const [image, , attestation] = manifests;
  assert.deepEqual(attestation.annotations, {
    "vnd.docker.reference.type": "attestation-manifest",
    "vnd.docker.reference.digest": image.digest,
  });
  assert.equal(attestation.digest, "sha256:17c4bfa8f8aad614ef14b1ba61cf0c1cb08ffde590e9d4218f90b788a31c4649", "byte for byte");
}

/** Whatever mask was set, our blobs are the same. */
function withUmask(name: string): Replay {
  return {
    name,
    sequence: "umask",
    umask: "077",
    differs: [{ result: "checked", reason: WHY.umask }],
    check: async ({ stage, played, digest }) => assert.equal((await stage.documents(stored(played), "um022")).digest, digest),
  };
}

/** Images of all kinds. */
export const IMAGE_REPLAYS: readonly Replay[] = CONVERSIONS;
