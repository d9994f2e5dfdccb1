// What every command's --help ends with: examples, and what the exit codes mean.

import type { Command } from "commander";

export const exitCodes: Readonly<Record<0 | 1 | 2, string>> = {
  0: "done",
  1: "failed (stderr says what was tried, why, and what to do)",
  2: "wrong usage",
};

export function withExamples(command: Command, examples: readonly string[], codes = exitCodes): Command {
  const lines = examples.map((example) => `  ${example}`).join("\n");
  const exits = Object.entries(codes).map(([code, meaning]) => `  ${code}  ${meaning}`).join("\n");
  return command.addHelpText("after", `\nExamples:\n${lines}\n\nExit codes:\n${exits}`);
}
