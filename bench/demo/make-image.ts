import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { IMAGE_TAG, inUserNamespace, isRoot } from "../images/debian-builder.ts";
import { makeDebianImage } from "./debian-image.ts";

const [size, directory, ...rest] = process.argv.slice(2);
if ((size !== "small" && size !== "big") || directory === undefined || rest.length > 0) {
  console.error("usage: node bench/demo/make-image.ts small|big DIRECTORY");
  process.exit(2);
}
const abort = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => abort.abort(new Error(`stopped by ${name}`)));

const layout = resolve(directory);
if (isRoot()) {
  try {
    await makeDebianImage(size, layout, { say: (message) => console.error(message), signal: abort.signal });
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    process.exit(1);
  }
} else {
  const [program, ...args] = inUserNamespace([process.execPath, import.meta.filename, size, layout]);
  const { status } = spawnSync(program, args, { stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0) {
    console.error("could not make the image in a user namespace; it can be made as root");
    process.exit(1);
  }
}
console.log(`oci:${layout}:${IMAGE_TAG}`);
