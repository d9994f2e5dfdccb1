// Without these, a seed that failed in CI could pass on a desk.

import { strict as assert } from "node:assert";
import { fileURLToPath } from "node:url";
import { simulate } from "./simulation.ts";

const seeds = [3, 9, 14];
const program = fileURLToPath(new URL("main.ts", import.meta.url));

async function hashInOtherProcess(seed: number): Promise<string> {
  const args = ["run", "-A", "--no-check", program, "--seed", String(seed)];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  const found = /has trace ([0-9a-f]{16})/.exec(new TextDecoder().decode(stdout));
  assert.ok(found !== null, new TextDecoder().decode(stderr));
  return found[1]!;
}

Deno.test("a seed has one trace, whatever ran before it and in whichever process", async () => {
  const first = new Map<number, string>();
  for (const seed of seeds) first.set(seed, (await simulate(seed)).hash);
  assert.equal(new Set(first.values()).size, seeds.length, "different seeds are different worlds");
  for (const seed of seeds.toReversed()) assert.equal((await simulate(seed)).hash, first.get(seed));
  for (const seed of seeds) assert.equal(await hashInOtherProcess(seed), first.get(seed));
});
