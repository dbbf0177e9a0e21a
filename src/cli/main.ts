import { SERVE_DEVICE_COMMAND } from "../daemon/device-places.ts";
import { readEnvironment, type Environment } from "./environment.ts";
import { interruptSignal, runToExit } from "./exit-status.ts";

const signal = interruptSignal();

await runToExit("lazylayer", signal, async () => {
  const environment = readEnvironment(signal);
  const [name, ...args] = process.argv.slice(2);
  return name === SERVE_DEVICE_COMMAND ? await serveDevice(args, environment) : await runCommand(environment);
});

async function serveDevice(args: readonly string[], environment: Environment): Promise<number> {
  const { runServeDevice } = await import("./serve-device.ts");
  return await runServeDevice(args, environment);
}

async function runCommand(environment: Environment): Promise<number> {
  const { createLazylayer } = await import("./lazylayer.ts");
  let status = 0;
  const program = await createLazylayer(environment, (found) => (status = found), process.argv[2]);
  await program.parseAsync();
  return status;
}
