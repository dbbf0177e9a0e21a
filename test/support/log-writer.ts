import { RotatedFile } from "../../src/daemon/log/rotated-file.ts";

/** Writes numbered lines into a log that others write to, too: `log-writer.ts PATH NAME LINES LIMIT_BYTES FILES`. */
const [path, name, ...numbers] = process.argv.slice(2);
const [lines, limitBytes, files] = numbers.map(Number);
const log = new RotatedFile(path, { limitBytes, files });
for (let number = 0; number < lines; number++) log.append(`${name} ${number} ${"x".repeat(number % 60)}.\n`);
log.close();
