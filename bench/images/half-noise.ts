/** Bytes of which half of each 4 KiB block can be compressed, as in many a program; the same every time. */
export function halfNoise(bytes: number): Buffer {
  const content = Buffer.alloc(bytes, "all work and no play makes a dull block of text. ");
  for (let at = 0, noise = 1; at < bytes; at += 4) {
    noise = Math.imul(noise ^ (noise >>> 15), 0x2c1b3c6d) + at;
    if ((at & 2048) === 0) content.writeInt32LE(noise | 0, at);
  }
  return content;
}
