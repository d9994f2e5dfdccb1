// Without this, a token could be guessed, read by others, or differ from start to start.

import { strict as assert } from "node:assert";
import { systemRandom } from "../../lib/io/system_random.ts";
import { loadOrMakeToken, readToken } from "../../lib/mgmt/http_token.ts";

async function inDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-token-" });
  try {
    await run(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("the first start makes the token for its owner only, later ones keep it", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/state/admin.token`;
    assert.equal(await readToken(path), null);
    const token = await loadOrMakeToken(path, systemRandom);
    assert.match(token, /^[0-9a-f]{64}$/);
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
    assert.equal(await loadOrMakeToken(path, systemRandom), token);
    assert.equal(await readToken(path), token);
    const names = [...Deno.readDirSync(`${directory}/state`)].map((e) => e.name);
    assert.deepEqual(names, ["admin.token"], "a draft was left behind");
  }));

Deno.test("starts at the same moment agree on one token", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/admin.token`;
    const tokens = await Promise.all(Array.from({ length: 8 }, () => loadOrMakeToken(path, systemRandom)));
    assert.equal(new Set(tokens).size, 1);
  }));

Deno.test("a token that others can read, or that is none, is refused with what to do", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/admin.token`;
    await Deno.writeTextFile(path, `${"ab".repeat(32)}\n`);
    await Deno.chmod(path, 0o640);
    await assert.rejects(loadOrMakeToken(path, systemRandom), /mode 640.*chmod 600/s);
    await Deno.chmod(path, 0o600);
    for (const text of ["", "short", "x".repeat(64), "AB".repeat(32)]) {
      await Deno.writeTextFile(path, text);
      await assert.rejects(loadOrMakeToken(path, systemRandom), /64 hexadecimal digits.*delete it/s);
    }
    await assert.rejects(
      loadOrMakeToken(`${path}/admin.token`, systemRandom),
      /Not a directory.*Check state_dir/s,
    );
    await assert.rejects(
      loadOrMakeToken("/proc/nowhere/admin.token", systemRandom),
      /Cannot make the admin token/,
    );
  }));
