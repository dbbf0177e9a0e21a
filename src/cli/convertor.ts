import { createConvertor } from "./convertor-command.ts";
import { readEnvironment } from "./environment.ts";
import { interruptSignal, runToExit } from "./exit-status.ts";
import { plainFlags } from "./go-flags.ts";

const signal = interruptSignal();

await runToExit("convertor", signal, async () => {
  const program = createConvertor(readEnvironment(signal));
  await program.parseAsync(plainFlags(process.argv.slice(2), program.options), { from: "user" });
});
