// Without this, a slip of the command line could lose a volume, leak a secret, or tell a script the wrong exit code.

import { strict as assert } from "node:assert";
import { ControlError } from "../../lib/mgmt/control.ts";
import { run, Scene } from "./scene.ts";

const GiB = 1024 ** 3;

Deno.test("volume create sends what its options say", async () => {
  await using scene = new Scene();
  const secret = scene.file("u.chap", "twelve-bytes-or-more\n");
  const args = [
    "volume",
    "create",
    "vol1",
    "--size",
    "10GiB",
    "--block-size",
    "4096",
    "--members",
    "alpha, beta",
  ];
  args.push("--initiators", "iqn.2026-01.*,iqn.2026-02.b", "--chap-user", "u", "--chap-secret-file", secret);
  args.push(
    "--mutual-user",
    "t",
    "--mutual-secret-file",
    secret,
    "--write-cache",
    "off",
    "--write-protect",
    "on",
    "--class",
    "local",
  );
  const { code, out, err } = await run([...args, ...scene.access]);
  assert.equal(err, "");
  assert.equal(code, 0);
  assert.match(out, /Made volume vol1: 10 GiB/);
  assert.deepEqual(scene.control.calls, [["create", {
    name: "vol1",
    sizeBytes: 10 * GiB,
    blockBytes: 4096,
    members: ["alpha", "beta"],
    initiators: ["iqn.2026-01.*", "iqn.2026-02.b"],
    chap: { user: "u", secret: "twelve-bytes-or-more" },
    mutual: { user: "t", secret: "twelve-bytes-or-more" },
    writeCache: false,
    writeProtected: true,
    volumeClass: "local",
  }]]);
});

Deno.test("volume create leaves to the member what was not said", async () => {
  await using scene = new Scene();
  assert.equal((await run(["volume", "create", "vol1", "--size", "1GiB", ...scene.access])).code, 0);
  assert.deepEqual(scene.control.calls, [["create", { name: "vol1", sizeBytes: GiB }]]);
});

Deno.test("volume set tells clearing from leaving alone, and grows with --size", async () => {
  await using scene = new Scene();
  const set = (...args: string[]) => run(["volume", "set", "vol0", ...args, ...scene.access]);
  assert.equal((await set("--no-chap", "--no-mutual", "--no-initiators")).code, 0);
  assert.equal((await set("--write-protect", "off")).code, 0);
  assert.equal((await set("--class", "fixed")).code, 0);
  assert.match((await run(["volume", "show", "vol0", ...scene.access])).out, /^class +fixed$/m);
  assert.match((await run(["volume", "list", ...scene.access])).out, /^vol0 .* fixed /m);
  const wrong = await set("--class", "odd");
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /normal, local, fixed/);
  assert.equal((await set("--size", "8GiB", "--initiators", "*")).code, 0);
  assert.deepEqual(scene.control.calls, [
    ["set", "vol0", { initiators: null, chap: null, mutual: null }],
    ["set", "vol0", { writeProtected: false }],
    ["set", "vol0", { volumeClass: "fixed" }],
    ["set", "vol0", { initiators: ["*"] }],
    ["resize", "vol0", 8 * GiB],
  ]);
  const resize = scene.control.resizeVolume.bind(scene.control);
  scene.control.resizeVolume = () => Promise.reject(new ControlError("noSpace", "No room."));
  const half = await set("--size", "9GiB", "--write-cache", "off");
  assert.equal(half.code, 1);
  assert.match(half.err, /No room\. \(The other changes .* were made\.\)/);
  scene.control.resizeVolume = resize;
  const nothing = await set();
  assert.equal(nothing.code, 2);
  assert.match(nothing.err, /Nothing to set/);
});

Deno.test("volume list, show and resize print tables for people and JSON for programs", async () => {
  await using scene = new Scene();
  const list = await run(["volume", "list", ...scene.access]);
  assert.match(list.out, /^NAME .*\nvol0 .*iqn\.2026-11\.net\.plimsoll\.demo:vol0\n$/);
  assert.equal(JSON.parse((await run(["volume", "list", "--json", ...scene.access])).out)[0].name, "vol0");
  assert.match(
    (await run(["volume", "show", "vol0", ...scene.access])).out,
    /size +4 GiB \(4,294,967,296 bytes\)/,
  );
  assert.equal(JSON.parse((await run(["volume", "show", "vol0", "--json", ...scene.access])).out).epoch, 1);
  const grown = await run(["volume", "resize", "vol0", "8GiB", "--json", ...scene.access]);
  assert.equal(JSON.parse(grown.out).sizeBytes, 8 * GiB);
  const missing = await run(["volume", "show", "nope", ...scene.access]);
  assert.equal(missing.code, 1);
  assert.equal(missing.out, "");
  assert.match(missing.err, /^plimsoll: There is no volume "nope"/);
});

Deno.test("volume delete asks a person for the name, and takes no other answer", async () => {
  await using scene = new Scene();
  const remove = (types: string | null) =>
    run(["volume", "delete", "vol0", ...scene.access], { tty: true, types });
  for (const answer of ["", "y", "yes", "vol", "VOL0", null]) {
    const { code, err } = await remove(answer);
    assert.equal(code, 1);
    assert.match(err, /1 GiB of data/);
    assert.match(err, /was not deleted/);
  }
  assert.deepEqual(scene.control.calls, []);
  assert.equal((await remove("vol0")).code, 0);
  assert.deepEqual(scene.control.calls, [["delete", "vol0"]]);
});

Deno.test("volume delete without a person needs --yes", async () => {
  await using scene = new Scene();
  const refused = await run(["volume", "delete", "vol0", ...scene.access]);
  assert.equal(refused.code, 2);
  assert.match(refused.err, /--yes/);
  assert.deepEqual(scene.control.calls, []);
  const done = await run(["volume", "delete", "vol0", "--yes", "--json", ...scene.access]);
  assert.equal(done.code, 0);
  assert.deepEqual(JSON.parse(done.out), { deleted: "vol0" });
});

Deno.test("wrong usage is exit 2, asks the member nothing, and says what would be right", async () => {
  await using scene = new Scene();
  const cases: [string[], RegExp][] = [
    [["volume", "create"], /--size <size>/],
    [["volume", "create", "a"], /--size/],
    [["volume", "create", "a", "--size", "10gib"], /4GiB/],
    [["volume", "create", "a", "--size", "0"], /Cannot use the size/],
    [["volume", "create", "a", "--size", "-1GiB"], /Cannot use the size/],
    [["volume", "create", "a", "--size", "1GiB", "--block-size", "520"], /512, 4096/],
    [["volume", "create", "a", "--size", "1GiB", "--chap-user", "u"], /--chap-secret-file go together/],
    [["volume", "create", "a", "--size", "1GiB", "--mutual-secret-file", "f"], /--mutual-user/],
    [["volume", "set", "vol0", "--write-cache", "maybe"], /on, off/],
    [["volume", "resize", "vol0"], /missing required argument 'size'/],
    [["volume", "resize", "vol0", "big"], /Cannot use the size "big"/],
    [["volume", "crate"], /unknown command 'crate'/],
    [["volume", "list", "extra"], /too many arguments/],
    [["volume", "list", "--jsno"], /--json/],
    [["volume"], /Usage: plimsoll volume/],
  ];
  for (const [args, message] of cases) {
    const access = args.length > 1 ? scene.access : [];
    const { code, out, err } = await run([...args, ...access]);
    assert.equal(code, 2, args.join(" "));
    assert.equal(out, "", args.join(" "));
    assert.match(err, message, args.join(" "));
  }
  assert.deepEqual(scene.control.calls, []);
});

Deno.test("what the member refuses is exit 1 with the member's words", async () => {
  await using scene = new Scene();
  scene.control.failure = new ControlError("noSpace", "Cannot make volume: no room. Add a disk.");
  const { code, out, err } = await run([
    "volume",
    "create",
    "a",
    "--size",
    "1GiB",
    "--json",
    ...scene.access,
  ]);
  assert.deepEqual([code, out, err], [1, "", "plimsoll: Cannot make volume: no room. Add a disk.\n"]);
});

Deno.test("a secret is taken from its file, and never printed", async () => {
  await using scene = new Scene();
  const secret = "nobody-sees-this-secret";
  const files = [scene.file("a", secret), scene.file("b", `${secret}\n`), scene.file("c", `${secret}\r\n`)];
  for (const file of files) {
    const args = ["volume", "set", "vol0", "--chap-user", "u", "--chap-secret-file", file];
    const { code, out, err } = await run([...args, "--json", ...scene.access]);
    assert.equal(code, 0);
    assert.ok(!(out + err).includes(secret));
    assert.deepEqual(scene.control.calls.at(-1), ["set", "vol0", { chap: { user: "u", secret } }]);
  }
  const empty = scene.file("empty", "\n");
  for (const file of [empty, `${scene.directory}/missing`]) {
    const args = ["volume", "set", "vol0", "--chap-user", "u", "--chap-secret-file", file];
    const { code, err } = await run([...args, ...scene.access]);
    assert.equal(code, 1);
    assert.ok(err.includes(file));
  }
});

Deno.test("a change needs the token: it says so where there is none, and where it is the wrong one", async () => {
  await using scene = new Scene();
  const none = await run(["volume", "delete", "vol0", "--yes", "--api", scene.api]);
  assert.equal(none.code, 2);
  assert.match(none.err, /--token-file/);
  const wrong = scene.file("wrong.token", `${"00".repeat(32)}\n`);
  const refused = await run(["volume", "delete", "vol0", "--yes", "--api", scene.api, "--token-file", wrong]);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /token .*is not this member's.*admin\.token/);
  Deno.chmodSync(scene.tokenFile, 0o644);
  const open = await run(["volume", "delete", "vol0", "--yes", ...scene.access]);
  assert.equal(open.code, 1);
  assert.match(open.err, /^plimsoll: Cannot use the admin token .*mode 644.*\n$/);
  const no = scene.file("no.token", "not a token\n");
  const noToken = await run(["volume", "delete", "vol0", "--yes", "--api", scene.api, "--token-file", no]);
  assert.equal(noToken.code, 1);
  assert.match(noToken.err, /^plimsoll: Cannot use the admin token .*64 hexadecimal digits.*\n$/);
  const file = ["--chap-user", "u", "--chap-secret-file", `${scene.directory}/none`];
  const noSecret = await run(["volume", "set", "vol0", ...scene.access, ...file]);
  assert.equal(noSecret.code, 1);
  assert.match(noSecret.err, /there is no such file\. Make the file with mode 600/);
  assert.deepEqual(scene.control.calls, []);
});
