/**
 * node bench/lazy/throttled-proxy.ts UPSTREAM BYTES_PER_SECOND LATENCY_MS
 *
 * A registry behind a slow line: passes requests on to `host:port`, each answer's head late by the latency and all bodies together no
 * faster than the rate. Prints the port that it listens on. `GET /counts` tells requests and bytes until now and starts anew.
 */
import { createServer, request as forward } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const [upstream, rate, latency] = process.argv.slice(2);
const bytesPerSecond = Number(rate);
const latencyMs = Number(latency);
const counts = { requests: 0, bytes: 0 };
/** When the line is free again, in milliseconds of `performance.now`. */
let freeAt = 0;

const server = createServer((request, response) => {
  if (request.url === "/counts") {
    response.end(JSON.stringify(counts));
    Object.assign(counts, { requests: 0, bytes: 0 });
    return;
  }
  counts.requests++;
  const { host: _, ...headers } = request.headers;
  const onward = forward(`http://${upstream}${request.url}`, { method: request.method, headers }, (answer) => {
    void (async () => {
      await sleep(latencyMs);
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        const now = performance.now();
        freeAt = Math.max(freeAt, now) + (chunk.length / bytesPerSecond) * 1000;
        counts.bytes += chunk.length;
        await sleep(freeAt - now);
        response.write(chunk);
      }
      response.end();
    })().catch(() => response.destroy());
  });
  onward.on("error", () => response.destroy());
  response.on("close", () => onward.destroy());
  request.pipe(onward);
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  console.log(typeof address === "object" && address !== null ? address.port : "");
});
