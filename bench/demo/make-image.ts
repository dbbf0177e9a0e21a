import { resolve } from "node:path";
import { run } from "../../test/support/command.ts";
import { IMAGE_TAG, inUserNamespace, isRoot, makeDebianImage } from "./debian-image.ts";

const [size, directory, ...rest] = process.argv.slice(2);
if ((size !== "small" && size !== "big") || directory === undefined || rest.length > 0) {
  console.error("usage: node bench/demo/make-image.ts small|big DIRECTORY");
  process.exit(2);
}
const layout = resolve(directory);
if (isRoot()) {
  await makeDebianImage(size, layout, (message) => console.error(message));
} else {
  const [program, ...args] = inUserNamespace([process.execPath, import.meta.filename, size, layout]);
  await run(program, args);
}
console.log(`oci:${layout}:${IMAGE_TAG}`);
