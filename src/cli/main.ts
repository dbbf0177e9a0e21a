import { readEnvironment } from "./environment.ts";
import { interruptSignal, runToExit } from "./exit-status.ts";
import { createLazylayer } from "./lazylayer.ts";

const signal = interruptSignal();

await runToExit("lazylayer", signal, async () => {
  let status = 0;
  await createLazylayer(readEnvironment(signal), (found) => (status = found)).parseAsync();
  return status;
});
