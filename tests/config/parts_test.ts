// Without this, "1.5GiB" or a path could come out as something else than what was written.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import {
  chapSecretProblem,
  formatSize,
  nameProblem,
  parseAddress,
  parseSize,
  resolvePath,
  secretOfFile,
} from "../../lib/config/mod.ts";
import { formatSocketAddress } from "../../lib/base/network.ts";
import { nearestName } from "../../lib/config/nearest.ts";

Deno.test("sizes: binary and decimal units, fractions that come out even, nothing else", () => {
  const right: [string | number, number][] = [
    ["4GiB", 4294967296],
    ["500GB", 500e9],
    ["1.5TiB", 1.5 * 2 ** 40],
    ["512", 512],
    [512, 512],
    ["512B", 512],
    ["1 MiB", 1048576],
    ["0.5KiB", 512],
    ["2PiB", 2 * 2 ** 50],
    ["1kB", 1000],
    ["1KB", 1000],
    ["1.000000001GB", 1000000001],
  ]; // deno-fmt-ignore
  for (const [text, bytes] of right) assert.equal(parseSize(text), bytes, String(text));
  for (
    const text of [
      "",
      "0",
      0,
      -1,
      1.5,
      NaN,
      Infinity,
      "4G",
      "4gib",
      "4Gib",
      "-4GiB",
      "1e9",
      "0x10",
      "1,5GiB",
      ".5GiB",
      "1.GiB",
      "GiB",
      "0.3KiB",
      "9PiB",
      2 ** 53,
      "99999999999999999999PiB",
      "4GiB x",
      "toString",
      "1toString",
    ] // deno-fmt-ignore
  ) assert.equal(parseSize(text), null, String(text));
});

Deno.test("a size comes back as it went, in its shortest form", () => {
  assert.equal(formatSize(4 * 2 ** 30), "4GiB");
  assert.equal(formatSize(500e9), "500GB");
  assert.equal(formatSize(513), "513B");
  fc.assert(fc.property(fc.maxSafeNat(), fc.constantFrom(1, 512, 2 ** 20, 1e6), (n, unit) => {
    const bytes = (n % Math.floor(Number.MAX_SAFE_INTEGER / unit)) * unit;
    if (bytes > 0) assert.equal(parseSize(formatSize(bytes)), bytes);
  }));
});

Deno.test("paths are relative to the file, absolute ones stay", () => {
  assert.equal(resolvePath("appliance.toml", "var/x"), "var/x");
  assert.equal(resolvePath("./appliance.toml", "var/x"), "var/x");
  assert.equal(resolvePath("/etc/p/a.toml", "../x/./y//z"), "/etc/x/y/z");
  assert.equal(resolvePath("../a.toml", "x"), "../x");
  assert.equal(resolvePath("../a.toml", "../../x"), "../../../x");
  assert.equal(resolvePath("/a.toml", "../../x"), "/x");
  assert.equal(resolvePath("d/a.toml", "/dev/sdb"), "/dev/sdb");
  assert.equal(resolvePath("a.toml", "."), ".");
});

Deno.test("an address comes back as it went", () => {
  const v4 = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.integer({ min: 1, max: 255 })).map((p) =>
    p.join(".")
  );
  const v6 = fc.array(fc.nat(0xffff), { minLength: 8, maxLength: 8 }).filter((p) => p.some((n) => n !== 0))
    .map((p) => `[${p.map((n) => n.toString(16)).join(":")}]`);
  fc.assert(fc.property(fc.oneof(v4, v6), fc.integer({ min: 1, max: 65535 }), (host, port) => {
    const parsed = parseAddress(`${host}:${port}`);
    assert.ok(parsed.kind === "address", `${host}:${port}`);
    assert.equal(parsed.address.port, port);
    const again = parseAddress(formatSocketAddress(parsed.address));
    assert.deepEqual(again, parsed, "the short form is its own short form");
  }));
  fc.assert(fc.property(fc.string(), (text) => void parseAddress(text)));
});

Deno.test("names make safe keys, URLs and iSCSI names", () => {
  for (const name of ["a", "vol0", "vm-1.disk", "0", "x".repeat(64)]) {
    assert.equal(nameProblem(name), null, name);
  }
  for (
    const name of [
      "",
      "A",
      "a_b",
      "a/b",
      "a b",
      "-a",
      "a-",
      ".a",
      "a.",
      "ü",
      "x".repeat(65),
      "a\n",
      "..",
      "a:b",
    ]
  ) {
    assert.notEqual(nameProblem(name), null, JSON.stringify(name));
  }
});

Deno.test("a secret file's last line end is not part of the secret, and lengths count bytes", () => {
  assert.equal(secretOfFile("abc\r\n"), "abc");
  assert.equal(secretOfFile("abc\n\n"), "abc\n");
  assert.equal(chapSecretProblem("x".repeat(12)), null);
  assert.notEqual(chapSecretProblem("x".repeat(11)), null);
  assert.equal(chapSecretProblem("ü".repeat(6)), null);
});

Deno.test("the nearest name is found for slips, and none for what is far away", () => {
  const keys = ["name", "block_size", "size", "write_cache", "initiators", "chap", "mutual"];
  const cases: [string, string | null][] = [
    ["nmae", "name"],
    ["blocksize", "block_size"],
    ["blockSize", "block_size"],
    ["Size", "size"],
    ["initiator", "initiators"],
    ["caching", null],
    ["x", null],
    ["frobnicate", null],
  ]; // deno-fmt-ignore
  for (const [name, expected] of cases) assert.equal(nearestName(name, keys), expected, name);
});
