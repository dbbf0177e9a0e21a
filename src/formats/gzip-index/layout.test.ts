import { testFormatPage } from "../../../test/support/format-page.ts";
import { gzipIndexEntry, gzipIndexHeader } from "./layout.ts";

testFormatPage("gzip-index.md", { Header: gzipIndexHeader, Entry: gzipIndexEntry });
