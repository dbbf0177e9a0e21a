import { testFormatPage } from "../../../test/support/format-page.ts";
import { zstdIndexEntry, zstdIndexHeader } from "./layout.ts";

testFormatPage("zstd-index.md", { Header: zstdIndexHeader, Entry: zstdIndexEntry });
