import { join } from "node:path";
import { z } from "zod";
import { run } from "../../test/support/command.ts";
import { tarBytesOf } from "../images/tar-bytes.ts";

const descriptor = z.object({
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  size: z.int(),
  platform: z.object({ os: z.string(), architecture: z.string() }).optional(),
});
const document = z.object({ layers: z.array(descriptor).optional(), manifests: z.array(descriptor).optional() });
type Descriptor = z.infer<typeof descriptor>;

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64", ppc64: "ppc64le", s390x: "s390x" };

export interface ImageFigures {
  readonly layerCount: number;
  /** Bytes of the layers' blobs, as a registry keeps them. */
  readonly blobBytes: number;
  /** Bytes of the layers as tar; known for an OCI layout only, because it takes reading them. */
  readonly tarBytes: number | undefined;
}

/** Sizes of an image in a registry (`HOST/NAME:TAG`) or an OCI layout (`oci:DIRECTORY:TAG`), by skopeo: not by what is measured. */
export async function readImageFigures(image: string): Promise<ImageFigures> {
  const layers = await layersOf(image);
  const directory = /^oci:(.+?)(?::[^:/]*)?$/.exec(image)?.[1];
  let tarBytes: number | undefined;
  if (directory !== undefined) {
    tarBytes = 0;
    for (const { digest } of layers) tarBytes += await tarBytesOf(join(directory, "blobs", digest.replace(":", "/")));
  }
  return { layerCount: layers.length, blobBytes: layers.reduce((sum, { size }) => sum + size, 0), tarBytes };
}

async function layersOf(image: string): Promise<readonly Descriptor[]> {
  const { layers, manifests } = document.parse(JSON.parse(await inspect(image)));
  if (layers !== undefined) return layers;
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  const found = manifests?.find(({ platform }) => platform?.os === "linux" && platform.architecture === architecture);
  if (found === undefined) throw new Error(`${image}: has no manifest for linux/${architecture}`);
  return await layersOf(`${image.replace(/:[^:/]*$/, "")}@${found.digest}`);
}

async function inspect(image: string): Promise<string> {
  const isLoopback = /^(127\.|localhost[:/])/.test(image);
  const place = image.startsWith("oci:") ? image : `docker://${image}`;
  return await run("skopeo", ["inspect", "--raw", ...(isLoopback ? ["--tls-verify=false"] : []), place]);
}
