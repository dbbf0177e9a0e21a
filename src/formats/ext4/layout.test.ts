import { testFormatPage } from "../../../test/support/format-page.ts";
import { groupStruct, inodeStruct, superblockStruct } from "./layout.ts";

testFormatPage("ext4.md", { Superblock: superblockStruct, "Group descriptor": groupStruct, Inode: inodeStruct });
