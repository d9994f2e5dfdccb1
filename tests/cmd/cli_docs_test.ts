// Without this, docs/cli.md would tell of options that are gone and miss those that are new.
// To write it anew: PLIMSOLL_WRITE_DOCS=1 deno test -A tests/cmd/cli_docs_test.ts

import { strict as assert } from "node:assert";
import type { Command } from "commander";
import { buildProgram } from "../../cmd/main_program.ts";
import { recorder, run } from "./scene.ts";

const docs = new URL("../../docs/cli.md", import.meta.url);

const head = `# The command line

\`plimsoll COMMAND --help\` prints what this page lists; a test keeps them equal. In the tree, say
\`deno task plimsoll COMMAND\`. Results go to stdout, everything else to stderr. \`--json\` prints what programs can read.
Colours are shown on a terminal only, and not when \`NO_COLOR\` is set.

A command finds the group by \`--config FILE\` (the admin address and the state directory in it), or by \`--api URL\` (an address and port will do); then
changes need \`--token-file FILE\` with the admin token, a copy that only its owner can read. HTTP proxies of the environment are never used.
Volumes and members are the group's, whichever member is asked; disks and sessions, and with them \`balance show\` and \`run\`, are that member's. What \`--json\` prints of
a running member is what the admin API answers ([api.md](api.md)), where that answers with anything.

Sizes are a number of bytes or carry a unit: \`512MiB\`, \`10GiB\`, \`1.5TiB\`, \`500GB\`.
`;

function paths(command: Command, path: string[] = []): string[][] {
  return [path, ...command.commands.flatMap((c) => paths(c, [...path, c.name()]))];
}

async function page(): Promise<string> {
  const parts = [head];
  for (const path of paths(buildProgram(recorder().terminal, { exitCode: 0 }))) {
    const { out } = await run([...path, "--help"], { columns: 100 });
    parts.push(`\n## ${["plimsoll", ...path].join(" ")}\n\n\`\`\`\n${out.trimEnd()}\n\`\`\`\n`);
  }
  return parts.join("");
}

Deno.test("docs/cli.md is what --help prints", async () => {
  const wanted = await page();
  if (Deno.env.get("PLIMSOLL_WRITE_DOCS") === "1") await Deno.writeTextFile(docs, wanted);
  assert.equal(
    await Deno.readTextFile(docs),
    wanted,
    "docs/cli.md is out of date; the first line of this test says how to write it anew",
  );
});
