import type { ByteString } from "../tree/entry.ts";

/** A path of an image for people: characters that would do more than be seen are written as their number. */
export function pathText(path: ByteString): string {
  const text = Buffer.from(path, "latin1").toString("utf8");
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
