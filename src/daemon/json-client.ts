import { request, type IncomingMessage } from "node:http";
import { once } from "node:events";
import { z } from "zod";
import { ERROR_CODES, LazyError, messageOf } from "../errors.ts";

const MAX_ANSWER_BYTES = 64 * 2 ** 20;

export interface JsonCall {
  readonly socketPath: string;
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly body?: object | undefined;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

const failureSchema = z.object({ code: z.string(), message: z.string() });

/**
 * Asks a server on a unix socket, and answers the JSON that it gave. Throws what the server says went wrong, with its code;
 * `NOT_FOUND` when nobody listens, `DENIED` when this user may not ask, `UNAVAILABLE` when there is no proper answer.
 */
export async function callJson(call: JsonCall): Promise<unknown> {
  const { socketPath, method, path, body, timeoutMs, signal } = call;
  const text = body === undefined ? undefined : JSON.stringify(body);
  const signals = [AbortSignal.timeout(timeoutMs), ...(signal === undefined ? [] : [signal])];
  let response: IncomingMessage;
  let answer: string;
  try {
    const sent = request({ socketPath, method, path, agent: false, signal: AbortSignal.any(signals) });
    const responses = once(sent, "response") as Promise<[IncomingMessage]>;
    sent.end(text);
    [response] = await responses;
    answer = await readAnswer(response);
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw unreachable(socketPath, error);
  }
  const value = parsed(answer, socketPath);
  if (response.statusCode !== undefined && response.statusCode < 300) return value;
  const failure = failureSchema.safeParse(value);
  if (!failure.success) throw new LazyError("UNAVAILABLE", `${socketPath}: status ${response.statusCode} for ${method} ${path}`);
  const code = ERROR_CODES.find((known) => known === failure.data.code) ?? "UNAVAILABLE";
  throw new LazyError(code, failure.data.message);
}

async function readAnswer(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES) throw new LazyError("UNAVAILABLE", `an answer of more than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parsed(text: string, socketPath: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new LazyError("UNAVAILABLE", `${socketPath}: the answer is no JSON: ${messageOf(cause)}`, { cause });
  }
}

/** What it means that a unix socket could not be reached. */
export function unreachable(socketPath: string, cause: unknown): LazyError {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (code === "ENOENT" || code === "ECONNREFUSED") return new LazyError("NOT_FOUND", `${socketPath}: nobody listens there`, { cause });
  if (code === "EACCES" || code === "EPERM") return new LazyError("DENIED", `${socketPath}: ${messageOf(cause)}`, { cause });
  return new LazyError("UNAVAILABLE", `${socketPath}: ${messageOf(cause)}`, { cause });
}
