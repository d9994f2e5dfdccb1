// Without this, a completion script could be broken for a release and nobody at the project would notice.

import { strict as assert } from "node:assert";
import { run } from "./scene.ts";

async function bash(script: string, cwd?: string): Promise<{ code: number; out: string; err: string }> {
  const command = new Deno.Command("bash", {
    args: ["--norc", "-c", script],
    ...(cwd === undefined ? {} : { cwd }),
  });
  const { code, stdout, stderr } = await command.output();
  return { code, out: new TextDecoder().decode(stdout).trim(), err: new TextDecoder().decode(stderr) };
}

/** What bash offers for the last of `words`. */
async function offered(...words: string[]): Promise<string[]> {
  const { out: script } = await run(["completions", "bash"]);
  const quoted = words.map((word) => `'${word}'`).join(" ");
  const { code, out, err } = await bash(`${script}
plimsoll() { printf 'NAME  SIZE\\nvol0  1 GiB\\nvol1  1 GiB\\n'; }
COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _plimsoll; printf '%s\\n' "\${COMPREPLY[@]}"`);
  assert.deepEqual([code, err], [0, ""]);
  return out.split("\n");
}

Deno.test("bash parses the script and it offers commands, options, values and volumes", async () => {
  assert.ok((await offered("plimsoll", "")).includes("volume"));
  assert.deepEqual(await offered("plimsoll", "volume", "cr"), ["create"]);
  assert.deepEqual(await offered("plimsoll", "volume", "create", "--block-size", ""), ["512", "4096"]);
  assert.deepEqual(await offered("plimsoll", "attach", "v", "--for", "w"), ["windows"]);
  assert.deepEqual(await offered("plimsoll", "volume", "delete", "--j"), ["--json"]);
  assert.deepEqual(await offered("plimsoll", "volume", "show", "vol"), ["vol0", "vol1"]);
  assert.deepEqual(await offered("plimsoll", "completions", "f"), ["fish"]);
});

Deno.test("the scripts of zsh and fish name every command; a shell that is not known is wrong usage", async () => {
  for (const shell of ["zsh", "fish"]) {
    const { code, out } = await run(["completions", shell]);
    assert.equal(code, 0);
    for (const word of ["volume create", "session list", "attach", "--block-size".slice(2)]) {
      assert.ok(out.includes(word), `${shell} ${word}`);
    }
  }
  assert.equal((await run(["completions", "tcsh"])).code, 2);
});
