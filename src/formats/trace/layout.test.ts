import { testFormatPage } from "../../../test/support/format-page.ts";
import { traceHeader, traceRecord } from "./layout.ts";

testFormatPage("trace.md", { Header: traceHeader, Record: traceRecord });
