/** The UUID that an option says; undefined, and a word about it, for what is none: these tools have always gone on without. */
export function knownUuid(text: string, option: string, stderr: NodeJS.WritableStream): string | undefined {
  if (text === "") return undefined;
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text;
  stderr.write(`${option} ${text} is no UUID, and is left out\n`);
  return undefined;
}
