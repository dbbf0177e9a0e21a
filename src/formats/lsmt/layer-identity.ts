import { LazyError, unsupported } from "../../errors.ts";
import { INVALID_FIRST_SECTOR, NO_UUID, SECTOR_BYTES, USER_TAG_BYTES, type LsmtRecord } from "./layout.ts";

export interface LsmtOptions {
  /** Size of the device in bytes: a multiple of 512. */
  readonly virtualSize: number;
  readonly uuid?: string | undefined;
  readonly parentUuid?: string | undefined;
  /** Free text of at most 256 bytes. */
  readonly userTag?: string | undefined;
}

/** What the records of a layer say about it. */
export type LayerIdentity = Pick<LsmtRecord, "virtualSize" | "uuid" | "parentUuid" | "userTag">;

/** The options as records have them. Throws `USAGE` or `UNSUPPORTED` for what they cannot hold; `where` begins the message. */
export function identityOf(options: LsmtOptions, where: string): LayerIdentity {
  checkVirtualSize(options.virtualSize, where);
  const userTag = Buffer.from(options.userTag ?? "");
  if (userTag.length > USER_TAG_BYTES) {
    throw new LazyError("USAGE", `${where}: user tag of ${userTag.length} bytes, expected at most ${USER_TAG_BYTES}`);
  }
  return {
    virtualSize: options.virtualSize,
    uuid: checkedUuid(options.uuid, where),
    parentUuid: checkedUuid(options.parentUuid, where),
    userTag,
  };
}

export function checkVirtualSize(virtualSize: number, where: string): void {
  if (!Number.isSafeInteger(virtualSize) || virtualSize < 0 || virtualSize % SECTOR_BYTES !== 0) {
    throw new LazyError("USAGE", `${where}: virtual size is ${virtualSize}, expected a multiple of ${SECTOR_BYTES}`);
  }
  if (virtualSize / SECTOR_BYTES >= INVALID_FIRST_SECTOR)
    throw unsupported(`${where}: virtual size is ${virtualSize}, too large for the index`);
}

function checkedUuid(uuid: string | undefined, where: string): string {
  if (uuid === undefined) return NO_UUID;
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(uuid)) {
    throw new LazyError("USAGE", `${where}: uuid is "${uuid}", expected hexadecimal digits in groups of 8-4-4-4-12`);
  }
  return uuid.toUpperCase();
}
