// Without this, what a stranger sends could stop the service or eat the memory: 64 MiB of random bytes and 10,000
// mutated logins, while one session goes on working. PLIMSOLL_SEED repeats a run's mutations.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { loginKeys, loginRequest, loginText, PlainInitiator, split } from "./plain_initiator.ts";
import { pause, TargetProcess } from "./target_process.ts";

const seed = Number(Deno.env.get("PLIMSOLL_SEED") ?? Math.floor(Math.random() * 2 ** 31));
const mebibyte = 1 << 20;

let state = seed;
function choose(below: number): number {
  state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
  return (state >>> 0) % below;
}

function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536) {
    crypto.getRandomValues(out.subarray(at, Math.min(length, at + 65_536)));
  }
  return out;
}

/** Sends all parts, reads until the peer closes (or falls silent), closes. Returns the bytes that could be sent. */
async function throwAt(address: string, parts: readonly Uint8Array[], silenceMs: number): Promise<number> {
  const connection = await Deno.connect(split(address));
  let sent = 0;
  const reading = (async () => {
    const buffer = new Uint8Array(65_536);
    try {
      while (await connection.read(buffer) !== null);
    } catch {
      // A reset is an answer too.
    }
  })();
  try {
    for (const part of parts) {
      for (let done = 0; done < part.length;) {
        const n = await connection.write(part.subarray(done));
        done += n;
        sent += n;
      }
    }
    await connection.closeWrite();
  } catch {
    // The target may close at the first wrong byte.
  }
  let timer: ReturnType<typeof setTimeout> | undefined;
  await Promise.race([reading, new Promise<void>((resolve) => timer = setTimeout(resolve, silenceMs))]);
  clearTimeout(timer);
  connection.close();
  await reading;
  return sent;
}

function mutatedLogin(targetName: string): Uint8Array[] {
  const keys = loginKeys(targetName);
  const names = Object.keys(keys);
  const name = names[choose(names.length)]!;
  const values = [
    "",
    "Maybe",
    "-1",
    "0x",
    "99999999999999999999",
    "No,Yes",
    "\u00e9\0\0",
    "A".repeat(300),
    "None,CRC32C,X",
  ];
  if (choose(3) === 0) keys[name] = values[choose(values.length)]!;
  if (choose(4) === 0) delete keys[names[choose(names.length)]!];
  if (choose(4) === 0) keys[`X-${"k".repeat(choose(90))}`] = "v".repeat(choose(400));
  if (choose(6) === 0) keys.AuthMethod = ["CHAP", "CHAP,None", "KRB5", "None"][choose(4)]!;
  let text = loginText(keys);
  if (choose(8) === 0) text = text.slice(0, choose(text.length));
  let pdu = loginRequest(text, choose(65_536));
  for (let flips = choose(4); flips > 0; flips--) {
    pdu[choose(choose(2) === 0 ? 48 : pdu.length)]! ^= 1 << choose(8);
  }
  if (choose(10) === 0) pdu = pdu.slice(0, choose(pdu.length));
  const parts: Uint8Array[] = [pdu];
  if (choose(4) === 0) parts.push(choose(2) === 0 ? pdu : randomBytes(choose(200)));
  return parts;
}

/** Runs `count` tasks, `width` at a time. */
async function inParallel(count: number, width: number, task: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: width }, async () => {
    while (next < count) await task(next++);
  }));
}

Deno.test("64 MiB of random bytes and 10,000 mutated logins leave the service and its memory in order", async () => {
  await using target = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "64MiB" }],
    diskSize: "256MiB",
  });
  const name = target.iqn();
  const resident = await PlainInitiator.login(target.portals[0], name);
  const pattern = randomBytes(mebibyte);
  await resident.write(0, pattern);
  const before = await target.residentBytes();

  const login = loginRequest(loginText(loginKeys(name)));
  let sent = 0;
  for (let i = 0; sent < 64 * mebibyte; i++) {
    // By turns: from the first byte on; after a whole login, in full feature phase; behind a login header that lies.
    const lead = i % 3 === 0
      ? []
      : i % 3 === 1
      ? [login]
      : [Uint8Array.from([...login.slice(0, 5), 0xff, 0xff, 0xff])];
    const taken = await throwAt(target.portals[i & 1]!, [...lead, randomBytes(mebibyte)], 2000);
    sent += Math.max(taken, 4096);
    assert.ok(target.running());
  }
  assert.deepEqual(await resident.read(0, 2048), pattern, `after ${sent} random bytes`);

  const logins = 10_000;
  await inParallel(logins, 16, async (i) => {
    await throwAt(target.portals[i & 1]!, mutatedLogin(name), 1000);
  });
  assert.deepEqual(await resident.read(0, 2048), pattern, `after mutated logins, PLIMSOLL_SEED=${seed}`);
  await pause(200);
  const fresh = await PlainInitiator.login(target.portals[1], name);
  assert.deepEqual(await fresh.read(0, 2048), pattern);
  await fresh.close();
  await resident.close();

  const after = await target.residentBytes();
  const told = (n: number) => `${Math.round(n / mebibyte)} MiB`;
  console.log(
    `resident memory: ${told(before.now)} before, ${told(after.now)} after, ${
      told(after.peak)
    } at most; PLIMSOLL_SEED=${seed}`,
  );
  assert.ok(
    after.peak <= limits.residentBytesMax,
    `${told(after.peak)} resident, bound ${told(limits.residentBytesMax)}`,
  );
  assert.equal((await target.stop()).code, 0);
});
