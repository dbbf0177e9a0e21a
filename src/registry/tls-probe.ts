import { tls } from "./node-http.ts";

const PROBE_MS = 5_000;

/** Whether something at `host[:port]` answers a TLS greeting. Nothing but the greeting is sent, and nothing is verified. */
export async function speaksTls(host: string): Promise<boolean> {
  const { hostname, port } = new URL(`https://${host}`);
  return await new Promise((resolve) => {
    const bare = hostname.replace(/^\[(.*)\]$/, "$1");
    const socket = tls().connect({ host: bare, port: Number(port || 443), rejectUnauthorized: false, timeout: PROBE_MS });
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("secureConnect", () => end(true));
    socket.once("timeout", () => end(false));
    socket.once("error", () => end(false));
    socket.once("close", () => end(false));
  });
}
