import { FileSource } from "../../bytes/file.ts";
import { openFailure } from "./tool.ts";

/** Opens a file to read; throws what the tools say of one that cannot be opened. */
export async function openSource(path: string): Promise<FileSource> {
  try {
    return await FileSource.open(path);
  } catch (error) {
    throw openFailure(path, error);
  }
}
