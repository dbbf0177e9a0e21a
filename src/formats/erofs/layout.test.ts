import { testFormatPage } from "../../../test/support/format-page.ts";
import { compactInodeStruct, direntStruct, extendedInodeStruct, superblockStruct, xattrEntryStruct, xattrHeaderStruct } from "./layout.ts";

testFormatPage("erofs.md", {
  Superblock: superblockStruct,
  "Compact inode": compactInodeStruct,
  "Extended inode": extendedInodeStruct,
  "Directory entry": direntStruct,
  "Attributes header": xattrHeaderStruct,
  Attribute: xattrEntryStruct,
});
