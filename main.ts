// Plimsoll's one executable. Everything is in cmd/.

import { runProgram } from "./cmd/main_program.ts";
import { systemTerminal } from "./cmd/terminal.ts";

if (import.meta.main) Deno.exit(await runProgram(Deno.args, systemTerminal()));
