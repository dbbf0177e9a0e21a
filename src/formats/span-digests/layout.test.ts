import { testFormatPage } from "../../../test/support/format-page.ts";
import { spanDigestsEntry, spanDigestsHeader } from "./layout.ts";

testFormatPage("span-digests.md", { Header: spanDigestsHeader, Entry: spanDigestsEntry });
