import { once } from "node:events";
import { connect } from "node:net";
import { z } from "zod";
import { ERROR_CODES, LazyError } from "../errors.ts";
import { unreachable } from "./json-client.ts";

export type ControlCall =
  | { readonly call: "stats" }
  | { readonly call: "stop"; readonly force: boolean }
  | { readonly call: "snapshot"; readonly config: string };

const replySchema = z.discriminatedUnion("success", [
  z.object({ success: z.literal(true), value: z.unknown().optional() }),
  z.object({ success: z.literal(false), code: z.enum(ERROR_CODES), message: z.string() }),
]);

export type ControlReply = z.infer<typeof replySchema>;

/**
 * Tells a device process what to do, and answers what it says. Throws what it says went wrong, with its code; `NOT_FOUND` when nobody
 * listens, `UNAVAILABLE` when there is no proper answer.
 */
export async function callControl(socketPath: string, call: ControlCall, timeoutMs: number): Promise<unknown> {
  const socket = connect(socketPath);
  const signal = AbortSignal.timeout(timeoutMs);
  const abort = (): void => void socket.destroy(new Error(`no answer in ${timeoutMs / 1000} s`));
  signal.addEventListener("abort", abort);
  let text = "";
  try {
    socket.setEncoding("utf8").on("data", (piece: string) => (text += piece));
    socket.write(`${JSON.stringify(call)}\n`);
    await once(socket, "end");
  } catch (error) {
    throw unreachable(socketPath, error);
  } finally {
    signal.removeEventListener("abort", abort);
    socket.destroy();
  }
  const reply = parsedReply(text, socketPath);
  if (reply.success) return reply.value;
  throw new LazyError(reply.code, reply.message);
}

function parsedReply(text: string, socketPath: string): ControlReply {
  try {
    return replySchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new LazyError("UNAVAILABLE", `${socketPath}: answered ${JSON.stringify(text.slice(0, 200))}, expected a line of JSON`, { cause });
  }
}
