import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { turboTargetOf } from "./turbo-annotations.ts";
import { TURBO_MEMBERS } from "./turbo-blob.ts";
import { digestOf } from "../oci/digest.ts";
import { OCI_LAYER_GZIP } from "../oci/media-types.ts";

const page = readFileSync(new URL("../../docs/formats/turbo-oci.md", import.meta.url), "utf8");

/** The rows of the tables under a heading of the page, cell by cell. */
function rowsOf(heading: string): string[][] {
  const section = page.split("\n## ").find((part) => part.startsWith(heading)) ?? "";
  return [...section.matchAll(/^\| (.*) \|$/gm)].map(([, row]) => row.split(" | ")).slice(2);
}

test("the page's members are those that are read, and the mark that is not", () => {
  const named = rowsOf("The layer blob").flatMap(([members]) => [...members.matchAll(/`([^`]+)`/g)].map(([, name]) => name));
  assert.deepEqual(named.toSorted(), [...TURBO_MEMBERS.keys(), ".turbo.ociv1"].toSorted());
});

test("the page's annotations are those that name a layer's target", () => {
  const prefix = "containerd.io/snapshot/overlaybd/";
  assert.ok(page.includes(`\`${prefix}\``));
  const keys = new Map(
    rowsOf("The descriptor").map(([key, value, older]) => [key.replaceAll("`", ""), { value, older: older?.replaceAll("`", "") }]),
  );
  const digest = digestOf(Buffer.from("target"));
  const versions = [...keys.get("version")!.value.matchAll(/`([^`]+)`/g)].map(([, version]) => version);
  assert.deepEqual(
    versions.map((version) => {
      const annotations = {
        [`${prefix}version`]: version,
        [prefix + keys.get("turbo-oci/target-digest")!.older]: digest,
        [prefix + keys.get("turbo-oci/target-media-type")!.older]: "type",
      };
      return turboTargetOf({ mediaType: OCI_LAYER_GZIP, digest, size: 1, annotations });
    }),
    [{ digest, mediaType: "type" }, { digest, mediaType: "type" }, undefined],
  );
});
