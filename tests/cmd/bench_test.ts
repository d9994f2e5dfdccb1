// Without these, `plimsoll bench` could overwrite a volume that nobody gave up, call a broken target fast, show a secret,
// or hang where it should say what is wrong.

import { strict as assert } from "node:assert";
import { formatLatency } from "../../cmd/bench_picture.ts";
import { parseBenchUrl } from "../../cmd/bench_url.ts";
import { libc } from "../../lib/io/native/libc.ts";
import { LoginResponse } from "../../lib/wire/iscsi/bhs.ts";
import { formatText } from "../../lib/wire/iscsi/text.ts";
import { fillWithNoise } from "../../lib/roles/bench/access.ts";
import { freePort } from "../interop/target_process.ts";
import { iqnPrefix, oneDisk, oneVolume, World } from "../roles/world.ts";
import { EIO } from "../store/memory_disk.ts";
import { type Outcome, type Person, run } from "./scene.ts";

const engines = libc() === null ? ["portable"] : ["native", "portable"];
const secret = "correct-horse-battery";
const chapVolume = `[[volume]]\nname = "safe"\nsize = "4MiB"\nchap = { user = "u", secret = "${secret}" }\n`;
const short = ["--seconds", "0.3", "--warm-up", "0"];

function url(world: World, volume = "vol0", user = "", port = world.ports[0]!.port): string {
  return `iscsi://${user}127.0.0.1:${port}/${iqnPrefix}:${volume}/0`;
}

interface Report {
  readonly seconds: number;
  readonly endedEarly: boolean;
  readonly all: Rates;
  readonly reads: Rates;
  readonly writes: Rates;
  readonly failures: { readonly what: string; readonly count: number }[];
}

interface Rates {
  readonly commands: number;
  readonly iops: number;
  readonly megabytesPerSecond: number;
  readonly latencyUs: Record<"min" | "mean" | "p50" | "p90" | "p99" | "p999" | "max", number>;
  readonly buckets: { readonly fromUs: number; readonly toUs: number; readonly count: number }[];
}

async function bench(args: readonly string[], person?: Person): Promise<Outcome> {
  return await run(["bench", ...args], person);
}

Deno.test("it reads, and tells rates that agree with each other, on every engine", async () => {
  await using world = await World.start();
  for (const engine of engines) {
    const args = ["--json", "--engine", engine, "--connections", "2", "--depth", "4", ...short];
    const { code, out, err } = await bench([url(world), ...args]);
    assert.deepEqual([code, err], [0, ""], engine);
    const { seconds, reads, writes, all, failures, endedEarly } = JSON.parse(out) as Report;
    assert.deepEqual([failures, endedEarly, writes.commands], [[], false, 0]);
    assert.ok(seconds >= 0.3 && reads.commands > 0, `${reads.commands} in ${seconds} s`);
    assert.ok(Math.abs(reads.iops * seconds - reads.commands) < 1e-6 * reads.commands);
    assert.ok(Math.abs(reads.megabytesPerSecond - reads.iops * 4096 / 1e6) < 1e-6 * reads.iops);
    assert.equal(all.commands, reads.commands);
    assert.equal(reads.buckets.reduce((sum, { count }) => sum + count, 0), reads.commands);
    const { min, p50, p90, p99, p999, max } = reads.latencyUs;
    const rising = [0, min, p50, p90, p99, p999, max];
    assert.deepEqual(rising, rising.toSorted((a, b) => a - b));
  }
});

Deno.test("it writes only where that is allowed in words, and then noise of the seed", async () => {
  await using world = await World.start();
  const writing = [url(world), "--read", "0", "--size", "64KiB", "--pattern", "sequential", ...short];
  const refused = await bench(writing);
  assert.deepEqual([refused.code, refused.out], [2, ""]);
  assert.match(refused.err, /destroys what it holds\. Add --overwrite/);
  const lun = await world.login();
  const before = await lun.read(0, 8);
  assert.ok(before instanceof Uint8Array && before.every((byte) => byte === 0));
  const { code, out, err } = await bench([...writing, "--overwrite", "--seed", "9", "--json"]);
  assert.deepEqual([code, err], [0, ""]);
  const report = JSON.parse(out) as Report;
  assert.ok(report.writes.commands > 0);
  assert.equal(report.reads.commands, 0);
  const noise = new Uint8Array(65_536);
  fillWithNoise(noise, 9);
  assert.deepEqual(await lun.read(0, 128), noise);
  const mixed = await bench([url(world), "--read", "70", "--overwrite", "--json", ...short]);
  const { reads, writes, all } = JSON.parse(mixed.out) as Report;
  assert.ok(reads.commands > writes.commands && writes.commands > 0);
  assert.equal(all.commands, reads.commands + writes.commands);
});

Deno.test("people see a table and a histogram: plain, or with blocks and colours where they are shown", async () => {
  await using world = await World.start();
  const plain = await bench([url(world), ...short]);
  assert.equal(plain.code, 0, plain.err);
  assert.match(
    plain.out,
    /LUN 0 \(16 MiB, blocks of 512 bytes\)\n4 KiB random reads, 1 connection x depth 32/,
  );
  assert.match(plain.out, /IOPS +MB\/s +MIN +P50 +P90 +P99 +P99\.9 +MAX\nreads +[\d,]+ /);
  assert.match(plain.out, /\d (us|ms) - [\d.]+ (us|ms) +100\.00 % +#/);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(plain.out, /[^\x00-\x7f]|\x1b/);
  const fine = await bench([url(world), "--seconds", "1.2", "--warm-up", "0"], {
    tty: true,
    colours: true,
    unicode: true,
  });
  assert.match(fine.out, /[▏▎▍▌▋▊▉█]/);
  assert.match(fine.err, /\r.*of 1\.2 s: [\d,]+ IOPS/, "progress each second");
});

Deno.test("commands that fail are counted by what the target says, and the exit code tells", async () => {
  await using world = await World.start();
  const lun = await world.login();
  assert.equal(await lun.write(0, new Uint8Array(16 * 1024)), "good");
  world.open.get("/d/a.img")!.fault = ({ kind }) => kind === "read" ? EIO : 0;
  // One page of 16 has a slot; the others read as zeroes without the disk.
  const { code, out, err } = await bench([url(world), "--json", ...short]);
  assert.equal(code, 1);
  assert.match(err, /commands? failed: CHECK CONDITION, MEDIUM ERROR, 11h\/00h/);
  const { failures, reads } = JSON.parse(out) as Report;
  assert.ok(failures[0]!.count > 0 && reads.commands > 0);
});

Deno.test("CHAP: the right secret gets in, a wrong one does not and is shown to nobody", async () => {
  await using world = await World.start({ tables: oneDisk + oneVolume + chapVolume });
  const right = Deno.makeTempFileSync(), wrong = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(right, `${secret}\n`);
    Deno.writeTextFileSync(wrong, "not-the-secret-at-all");
    const target = url(world, "safe", "u@");
    const ok = await bench([target, "--json", "--chap-secret-file", right, ...short]);
    assert.deepEqual([ok.code, ok.err], [0, ""]);
    assert.ok(!ok.out.includes(secret) && ok.out.includes('"chapUser": "u"'));
    for (const engine of engines) {
      const bad = await bench([target, "--engine", engine, "--chap-secret-file", wrong, ...short]);
      assert.deepEqual([bad.code, bad.out], [1, ""]);
      assert.match(bad.err, /Cannot log in to iqn.*:safe: .*Authentication failure.* --chap-secret-file/);
      assert.ok(!bad.err.includes("not-the-secret"));
    }
    assert.match((await bench([url(world, "safe"), ...short])).err, /Cannot log in to/);
    const none = await bench([target, ...short]);
    assert.equal(none.code, 2);
    assert.match(none.err, /--chap-secret-file FILE/);
    assert.equal((await bench([url(world), "--chap-secret-file", right])).code, 2);
    const missing = await bench([target, "--chap-secret-file", `${right}.no`]);
    assert.equal(missing.code, 1);
    assert.match(missing.err, /Cannot read the CHAP secret ".*there is no such file/);
  } finally {
    Deno.removeSync(right);
    Deno.removeSync(wrong);
  }
});

Deno.test("a target that is not there, is unknown or has no such unit is an error that says so", async () => {
  await using world = await World.start();
  for (const engine of engines) {
    const more = ["--engine", engine, ...short];
    const nobody = await bench([url(world, "vol0", "", freePort()), ...more]);
    assert.deepEqual([nobody.code, nobody.out], [1, ""]);
    assert.match(nobody.err, /Cannot connect to 127\.0\.0\.1:\d+: .*refused.* Check the address in the URL/i);
    const unknown = await bench([url(world, "nope"), ...more]);
    assert.deepEqual([unknown.code, unknown.out], [1, ""]);
    assert.match(unknown.err, /Cannot log in to iqn.*:nope: .*Not found.* the target's name/);
    const noUnit = await bench([url(world).replace(/0$/, "7"), ...more]);
    assert.deepEqual([noUnit.code, noUnit.out], [1, ""]);
    assert.match(noUnit.err, /Cannot use LUN 7: CHECK CONDITION, ILLEGAL REQUEST, 25h\/00h/);
  }
  const nowhere = await bench(["iscsi://no-such-host.invalid/iqn.2026-01.x:y", ...short]);
  assert.equal(nowhere.code, 1);
  assert.match(nowhere.err, /Cannot find the host "no-such-host\.invalid"/);
});

Deno.test("a connection that is cut ends the load with an error, and what was measured is shown", async () => {
  await using world = await World.start();
  for (const engine of engines) {
    using relay = cuttingRelay(world.ports[0]!.port, 2_000_000);
    const target = url(world, "vol0", "", relay.port);
    const { code, out, err } = await bench([target, "--engine", engine, "--seconds", "60", "--warm-up", "0"]);
    assert.equal(code, 1, engine);
    assert.match(err, /The connection was lost: /);
    assert.match(out, /lost: /);
  }
});

Deno.test("a target that has moved is measured where it is, by a person who is told so", async () => {
  using target = movedTarget("192.0.2.7:3260");
  const { code, out, err } = await bench([`iscsi://127.0.0.1:${target.port}/${iqnPrefix}:vol0/0`, ...short]);
  assert.deepEqual([code, out], [1, ""]);
  assert.match(err, /the target has moved to 192\.0\.2\.7:3260\. Put that address into the URL/);
});

/** Answers every login with "target moved temporarily" (RFC 7143 §11.13.5). */
function movedTarget(address: string): { readonly port: number } & Disposable {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serve = async () => {
    for await (const client of listener) {
      const request = new Uint8Array(65_536);
      await client.read(request);
      const text = formatText([{ key: "TargetAddress", value: address }]);
      const bytes = new Uint8Array(48 + Math.ceil(text.length / 4) * 4);
      const view = new DataView(bytes.buffer);
      LoginResponse.opcode.set(view, 0, 0x23);
      LoginResponse.dataSegmentLength.set(view, 0, text.length);
      LoginResponse.initiatorTaskTag.set(view, 0, new DataView(request.buffer).getUint32(16));
      LoginResponse.statusClass.set(view, 0, 1);
      LoginResponse.statusDetail.set(view, 0, 1);
      bytes.set(text, 48);
      await client.write(bytes);
    }
  };
  void serve();
  return { port: listener.addr.port, [Symbol.dispose]: () => listener.close() };
}

/** Passes a connection on until so many bytes have come back, then cuts it. */
function cuttingRelay(to: number, bytes: number): { readonly port: number } & Disposable {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const relay = async () => {
    for await (const client of listener) {
      const server = await Deno.connect({ hostname: "127.0.0.1", port: to });
      const buffer = new Uint8Array(65_536);
      const out = client.readable.pipeTo(server.writable).catch(() => {});
      for (let left = bytes; left > 0;) {
        const count = await server.read(buffer);
        if (count === null) break;
        for (let at = 0; at < count;) at += await client.write(buffer.subarray(at, count));
        left -= count;
      }
      try {
        client.close();
        server.close();
      } catch { /* closed by the pipe */ }
      await out;
    }
  };
  void relay();
  return { port: listener.addr.port, [Symbol.dispose]: () => listener.close() };
}

Deno.test("SIGINT ends it early, with what was measured and a logout", async () => {
  await using world = await World.start();
  const main = new URL("../../main.ts", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", main, "bench", url(world), "--json", "--seconds", "600", "--warm-up", "0"],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output = child.output();
  let commands = 0;
  while (commands < 100) { // below that it may not measure yet
    await new Promise((resolve) => setTimeout(resolve, 20));
    commands = (await world.target.control.sessions())[0]?.commands ?? 0;
  }
  child.kill("SIGINT");
  const { code, stdout, stderr } = await output;
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const report = JSON.parse(new TextDecoder().decode(stdout)) as Report;
  assert.ok(report.endedEarly && report.seconds < 600 && report.all.commands > 0);
  assert.match(new TextDecoder().decode(stderr), /Ended early/);
  assert.deepEqual(await world.target.control.sessions(), []);
});

Deno.test("URLs are read as libiscsi writes them; bad ones are wrong usage and repeat no secret", async () => {
  const name = "iqn.2026-11.net.plimsoll.demo:vol0";
  const plain = { user: null, host: "192.0.2.1", port: 3260, targetName: name, lun: 0 };
  assert.deepEqual(parseBenchUrl(`iscsi://192.0.2.1/${name}`), plain);
  assert.deepEqual(parseBenchUrl(`iscsi://192.0.2.1/${name}/`), plain);
  assert.deepEqual(parseBenchUrl(`ISCSI://192.0.2.1:860/${name.toUpperCase()}/12`), {
    ...plain,
    port: 860,
    lun: 12,
  });
  assert.deepEqual(parseBenchUrl(`iscsi://me@[2001:db8::1]:3261/${name}/0`), {
    ...plain,
    user: "me",
    host: "2001:db8::1",
    port: 3261,
  });
  assert.equal(parseBenchUrl(`iscsi://san.example/${name.replace(":", "%3A")}`).targetName, name);
  const bad = [
    "http://192.0.2.1/x",
    "iscsi://192.0.2.1",
    "iscsi:///iqn.x",
    `iscsi://192.0.2.1:0/${name}`,
    `iscsi://192.0.2.1:99999/${name}`,
    `iscsi://::1/${name}`,
    `iscsi://192.0.2.1/${name}/256`,
    `iscsi://192.0.2.1/${name}/-1`,
    `iscsi://192.0.2.1/${name}/0/1`,
    "iscsi://192.0.2.1/vol0/0",
    `iscsi://user%hunter2@192.0.2.1/${name}`,
    `iscsi://user:hunter2@192.0.2.1/${name}`,
    `iscsi://@192.0.2.1/${name}`,
  ];
  for (const text of bad) {
    const { code, out, err } = await bench([text]);
    assert.deepEqual([code, out], [2, ""], text);
    assert.match(err, /^plimsoll: Cannot use the URL: /, text);
    assert.ok(!err.includes("hunter2"), text);
  }
});

Deno.test("options out of bounds are wrong usage; a size that does not fit the unit is an error", async () => {
  await using world = await World.start();
  const wrong = [
    ["--depth", "0"],
    ["--depth", "100000"],
    ["--size", "100"],
    ["--size", "16MiB"],
    ["--size", "4097"],
    ["--read", "101"],
    ["--connections", "33"],
    ["--seconds", "0"],
    ["--seconds", "x"],
    ["--seed", "-1"],
    ["--pattern", "zigzag"],
    ["--initiator-name", "me"],
  ];
  for (const args of wrong) {
    const { code, out } = await bench([url(world), ...args]);
    assert.deepEqual([code, out], [2, ""], args.join(" "));
  }
  await using large = await World.start({
    tables: oneDisk + `[[volume]]\nname = "vol0"\nsize = "4MiB"\nblock_size = 4096\n`,
  });
  const odd = await bench([url(large), "--size", "512", ...short]);
  assert.equal(odd.code, 1);
  assert.match(odd.err, /blocks are 4096 bytes\. Give --size a multiple/);
  const big = await bench([url(large), "--size", "8MiB", ...short]);
  assert.equal(big.code, 1);
  assert.match(big.err, /Give a smaller --size/);
});

Deno.test("latencies are shown with three digits and the unit that fits", () => {
  const shown = [0, 0.000125, 0.0123, 0.35, 0.9996, 1.25, 12.34, 250, 999.6, 2500].map(formatLatency);
  assert.deepEqual(shown, [
    "0 us",
    "0.13 us",
    "12.3 us",
    "350 us",
    "1 ms",
    "1.25 ms",
    "12.3 ms",
    "250 ms",
    "1 s",
    "2.5 s",
  ]);
});
