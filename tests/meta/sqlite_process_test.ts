// Without these, several members on one machine, their crashes and their simultaneous first starts could damage the
// group's metadata, or a damaged file could pass for an empty one.

import { strict as assert } from "node:assert";
import { DatabaseSync } from "node:sqlite";
import { SqliteDatabase } from "../../lib/meta/sqlite_database.ts";
import { openSqliteMetadata } from "../../lib/meta/sqlite_metadata.ts";
import { decodeNumber, encodeNumber } from "../../lib/meta/records.ts";

const script = new URL("./sqlite_process.ts", import.meta.url).pathname;

function start(task: string, file: string, name: string): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--quiet", script, task, file, name],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
}

async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-meta-" });
  try {
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("four processes that open a new file at once share one store", () =>
  // Lost without it: `plimsoll target` four times at boot, and one of them refused.
  withDirectory(async (directory) => {
    const file = `${directory}/var/group.db`;
    const names = ["a", "b", "c", "d"];
    const children = names.map((name) => start("count", file, name));
    for (const child of children) {
      await child.stdout.cancel();
      assert.equal((await child.status).code, 0);
    }
    const metadata = await openSqliteMetadata(file);
    assert.equal(decodeNumber((await metadata.get("counter"))!.value), 100);
    assert.deepEqual((await metadata.list("seen/")).entries.map((e) => decodeNumber(e.value)), [
      25,
      25,
      25,
      25,
    ]);
    await metadata.close();
    assert.equal((await Deno.stat(file)).mode! & 0o777, 0o600);
    assert.deepEqual([...Deno.readDirSync(`${directory}/var`)].map((e) => e.name), ["group.db"]);
  }));

Deno.test("a file that another process makes a store of while it is looked at is not another program's", () =>
  // Lost without it: one of several first starts that is refused, once in some hundred times.
  withDirectory((directory) => {
    const file = `${directory}/group.db`;
    const options = { historyRevisions: 100, busyTimeoutMs: 50, pollMs: 100 };
    const { prepare } = DatabaseSync.prototype;
    let between = 0;
    try {
      DatabaseSync.prototype.prepare = function (text) {
        if (text.includes("FROM sqlite_schema") && between++ === 0) {
          try {
            new SqliteDatabase(file, options).close();
          } catch (error) {
            assert.match((error as Error).message, /locked/); // it waits for its turn, in vain here
          }
        }
        return prepare.call(this, text);
      };
      new SqliteDatabase(file, options).close();
    } finally {
      DatabaseSync.prototype.prepare = prepare;
    }
    assert.ok(between > 0, "nobody came between");
    return Promise.resolve();
  }));

Deno.test("a writer killed at any moment loses nothing it was told is done", () =>
  // Lost without it: an acknowledged volume that is gone after a crash, or half of a transaction that stays.
  withDirectory(async (directory) => {
    const file = `${directory}/group.db`;
    let leases = 0;
    for (let round = 1; round <= 4; round++) {
      const child = start("write", file, "w");
      let output = "";
      const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
      while (output.split("\n").length < 10 * round) output += (await reader.read()).value ?? "";
      child.kill("SIGKILL");
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        output += value;
      }
      await child.status;
      const lines = output.split("\n").slice(0, -1);
      const acknowledged = Number(lines.at(-1));
      const metadata = await openSqliteMetadata(file);
      const [left, right] = await Promise.all([metadata.get("left/w"), metadata.get("right/w")]);
      assert.ok(acknowledged >= 8, output);
      assert.ok(decodeNumber(left!.value) >= acknowledged, "an acknowledged transaction is gone");
      assert.ok(decodeNumber(left!.value) <= acknowledged + 1, "a transaction nobody asked for is there");
      assert.deepEqual([right!.value, right!.modRevision], [left!.value, left!.modRevision]);
      assert.equal((await metadata.list("number/")).entries.length, decodeNumber(left!.value));
      leases = Number(lines[0]!.slice("lease ".length));
      await metadata.revokeLease(leases);
      assert.equal((await metadata.list("number/")).entries.length, 0);
      await metadata.close();
    }
    assert.equal(leases, 4, "a lease number is never used again");
  }));

Deno.test("while another process holds the file, this one's event loop runs and is then told why", () =>
  // Lost without it: a member stopped inside a transaction that freezes all others.
  withDirectory(async (directory) => {
    const file = `${directory}/group.db`;
    const metadata = await openSqliteMetadata(file, { busyTimeoutMs: 200 });
    await metadata.commit([], [{ kind: "put", key: "k", value: encodeNumber(1) }]);
    const holder = new DatabaseSync(file);
    holder.exec("BEGIN IMMEDIATE");
    let turns = 0;
    const timer = setInterval(() => turns++, 5);
    await assert.rejects(
      metadata.commit([], [{ kind: "put", key: "k", value: encodeNumber(2) }]),
      /Cannot change group metadata ".*group\.db": database is locked\. Another process has held it for 0\.2 s/,
    );
    clearInterval(timer);
    assert.ok(turns > 2, `the event loop turned ${turns} times`);
    assert.equal(decodeNumber((await metadata.get("k"))!.value), 1, "reading goes on meanwhile");
    holder.exec("ROLLBACK");
    holder.close();
    await metadata.commit([], [{ kind: "put", key: "k", value: encodeNumber(3) }]);
    await metadata.close();
  }));

async function filled(file: string): Promise<void> {
  const metadata = await openSqliteMetadata(file);
  for (let i = 0; i < 64; i++) {
    await metadata.commit([], [{ kind: "put", key: `k/${i}`, value: new Uint8Array(4096).fill(i) }]);
  }
  await metadata.close();
}

Deno.test("a damaged file is refused with what to do, never taken for an empty one", () =>
  // Lost without it: a group that starts anew over its own ruins.
  withDirectory(async (directory) => {
    const file = `${directory}/group.db`;
    await filled(file);
    const whole = await Deno.readFile(file);
    const damages: [string, (bytes: Uint8Array) => Uint8Array][] = [
      ["header overwritten", (b) => b.fill(0x55, 0, 100)],
      ["pages overwritten", (b) => b.fill(0xaa, 4096, b.length)],
      ["one bit of a value", (b) => {
        b[b.lastIndexOf(42)]! ^= 4;
        return b;
      }],
      ["cut off", (b) => b.slice(0, 3 * 4096)],
    ];
    for (const [what, damage] of damages) {
      await Deno.writeFile(file, damage(whole.slice()));
      await assert.rejects(
        openSqliteMetadata(file),
        /Cannot open group metadata ".*group\.db": .*\. The file is damaged: stop every member, keep the file, and put back a copy/,
        what,
      );
    }
    await Deno.writeFile(file, whole);
    const metadata = await openSqliteMetadata(file);
    assert.equal((await metadata.list("k/")).entries.length, 64);
    await metadata.close();
  }));

Deno.test("a file of another program, and one of a newer format, are refused", () =>
  // Lost without it: an older member that spoils what a newer one wrote.
  withDirectory(async (directory) => {
    const foreign = new DatabaseSync(`${directory}/foreign.db`);
    foreign.exec("CREATE TABLE t (x)");
    foreign.close();
    await assert.rejects(
      openSqliteMetadata(`${directory}/foreign.db`),
      /is an SQLite file of another program\. Give another path/,
    );
    const file = `${directory}/group.db`;
    await filled(file);
    const newer = new DatabaseSync(file);
    newer.exec("PRAGMA user_version = 2");
    newer.close();
    await assert.rejects(openSqliteMetadata(file), /has format 2, .* up to 1\. Start the newer program/);
  }));

Deno.test("a path that cannot be is refused with the reason", () =>
  // Lost without it: "unable to open database file", and nothing else.
  withDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/file`, "");
    await assert.rejects(
      openSqliteMetadata(`${directory}/file/group.db`),
      /Cannot open group metadata .*Check that the path exists/,
    );
    await assert.rejects(openSqliteMetadata(directory), /Cannot open group metadata/);
  }));

Deno.test("a file that others may read is made private again", () =>
  // Lost without it: CHAP secrets in a copy that was put back with mode 0644.
  withDirectory(async (directory) => {
    const file = `${directory}/group.db`;
    await filled(file);
    await Deno.chmod(file, 0o644);
    const metadata = await openSqliteMetadata(file);
    for (const name of ["group.db", "group.db-wal", "group.db-shm"]) {
      assert.equal((await Deno.stat(`${directory}/${name}`)).mode! & 0o777, 0o600, name);
    }
    await metadata.close();
  }));

Deno.test("leases of an earlier boot have ended when the file is opened", () =>
  // Lost without it: after a power loss, members that are "up" for as long as the last boot was old.
  withDirectory(async (directory) => {
    const file = `${directory}/group.db`;
    const before = await openSqliteMetadata(file);
    const lease = await before.grantLease(3_600_000);
    await before.commit([], [{ kind: "put", key: "k", value: encodeNumber(1), leaseId: lease }]);
    await before.close();
    const reboot = new DatabaseSync(file);
    reboot.exec("UPDATE lease SET era = 'another boot'");
    reboot.close();
    const after = await openSqliteMetadata(file);
    assert.equal(await after.get("k"), null);
    assert.equal(await after.renewLease(lease), false);
    await after.close();
  }));

Deno.test("a connection that is closed answers what was asked before, and is silent afterwards", () =>
  // Lost without it: a stop that hangs, or tells watchers that they are lost.
  withDirectory(async (directory) => {
    const metadata = await openSqliteMetadata(`${directory}/group.db`, { pollMs: 5 });
    let calls = 0;
    metadata.watch("", 0, () => calls++, () => calls++);
    const waiting = metadata.get("k");
    const closing = metadata.close();
    assert.equal(await waiting, null);
    await closing;
    await assert.rejects(metadata.commit([], []), /is closed/);
    assert.equal(calls, 0);
  }));

Deno.test("a copy taken by VACUUM INTO while members write can be put back", () =>
  // Lost without it: the backup that docs/metadata.md describes.
  withDirectory(async (directory) => {
    const file = `${directory}/group.db`;
    const metadata = await openSqliteMetadata(file);
    for (let i = 1; i <= 20; i++) {
      await metadata.commit([], [{ kind: "put", key: `k/${i}`, value: encodeNumber(i) }]);
    }
    await metadata.commit([], [{ kind: "delete", key: "k/7" }]);
    const lease = await metadata.grantLease(1_000);
    const before = await metadata.list("");
    const writing = [metadata.commit([], [{ kind: "put", key: "later", value: encodeNumber(1) }])];
    const other = new DatabaseSync(file);
    other.exec(`VACUUM INTO '${directory}/copy.db'`);
    other.close();
    await Promise.all(writing);
    await metadata.close();
    const copy = await openSqliteMetadata(`${directory}/copy.db`);
    const restored = (await copy.list("k/")).entries;
    assert.deepEqual(restored, before.entries);
    assert.ok(await copy.grantLease(1_000) > lease);
    // A watch from a revision that the copy has not seen is told to begin again.
    await new Promise<void>((lost) => copy.watch("", before.revision + 5, () => {}, lost));
    await copy.close();
  }));
