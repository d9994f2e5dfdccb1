// Without this, only the simulated disk would be known to keep what was acknowledged: here the process is a process, the file
// a file, and the death a SIGKILL. PLIMSOLL_KILL_ROUNDS sets how many deaths (default 5).

import { strict as assert } from "node:assert";
import { openFileDisk } from "../../lib/io/file_disk.ts";
import { checkStore, formatDisk, openStore } from "../../lib/store/mod.ts";
import { Oracle, readStamp, sectorBytes } from "./block_oracle.ts";
import { bootId, diskBytesFor, identity, pageBytes, read, SeededRandom } from "./store_calls.ts";

const rounds = Number(Deno.env.get("PLIMSOLL_KILL_ROUNDS") ?? 5);
const pages = 20;
const sectorsPerPage = pageBytes / sectorBytes;

/** Runs the writer, kills it after some of its lines, and tells the oracle what it said before it died. */
async function round(path: string, seed: number, lines: number, oracle: Oracle): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL("./kill_writer.ts", import.meta.url).pathname, path, String(seed)],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let acknowledged = 0;
  let text = "";
  let seen = 0;
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    text += decoder.decode(chunk, { stream: true });
    const whole = text.split("\n");
    text = whole.pop()!;
    for (const line of whole) {
      const [word, ...rest] = line.split(" ");
      const [page, first, count, stamp] = rest.map(Number) as [number, number, number, number];
      if (word === "begin") oracle.begin(1, page, first, count, stamp);
      else if (word === "end") {
        oracle.end(1, page, first, count, true, false);
        acknowledged++;
      } else assert.equal(word, "ready", line);
      // What was said before the kill is still in the pipe, and is read to its end.
      if (++seen === lines) child.kill("SIGKILL");
    }
  }
  const status = await child.status;
  assert.equal(status.signal, "SIGKILL");
  return acknowledged;
}

Deno.test("every acknowledged block survives the death of the process", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/disk.img`;
    const random = new SeededRandom(7);
    const made = openFileDisk(path, { createBytes: diskBytesFor(24) });
    await formatDisk(made, { ...identity, pageBytes }, random);
    await made.close();
    const oracle = new Oracle(pages, sectorsPerPage);
    let acknowledged = 0;
    for (let n = 1; n <= rounds; n++) {
      acknowledged += await round(path, n, 50 + random.below(2000), oracle);
      const disk = openFileDisk(path);
      const report = await checkStore(disk);
      assert.deepEqual(report.findings.filter((f) => f.severity !== "note"), []);
      const store = await openStore(disk, identity, { bootId });
      assert.equal(store.powerLossSuspected, false);
      for (let page = 0; page < pages; page++) {
        const bytes = await read(store, 1, page, 0, pageBytes);
        for (let s = 0; s < sectorsPerPage; s++) {
          const stamp = readStamp(bytes, s * sectorBytes, 1, page, s);
          if (typeof stamp === "string") assert.fail(stamp);
          assert.equal(oracle.reopened(1, page, s, stamp, false, false), null);
        }
      }
      await store.settled();
      if (n % 2 === 0) await store.close(); // otherwise it looks as if this process had died too
      await disk.close();
    }
    assert.ok(acknowledged > rounds, "the writer wrote before it died");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
