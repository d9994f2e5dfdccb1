// Without this, a stop for a restart may leave a member's machine steering packets of connections that nobody takes up, or a
// start may take up what is damaged.

import { strict as assert } from "node:assert";
import type { KeptFlow } from "../../lib/base/flow.ts";
import type { Log } from "../../lib/base/log.ts";
import { silentLog } from "../../lib/base/log.ts";
import type { MessageOutcome } from "../../lib/forward/mod.ts";
import type { LiveRecord } from "../../lib/meta/records.ts";
import { SessionMoves } from "../../lib/roles/target/session_moves.ts";
import { MessageKind, MessageRefusal } from "../../lib/wire/scsi/member_message.ts";
import { session } from "../shortcut/move_group.ts";
import { state } from "../shortcut/tcp_state.ts";
import { ManualClock } from "./manual_clock.ts";

/** What outlives a process of the member: its machine. */
class Machine {
  file: string | null = null;
  diskFails = false;
  kernelFails = false;
  kept: readonly KeptFlow[] | null = null;
  steered: string[] = [];
  provoked = 0;
  /** Messages to beta, and kinds that it refuses. */
  readonly told: number[] = [];
  readonly refuses = new Set<number>();
  readonly warnings: string[] = [];
  betaIsDown = false;

  start(run: string, forRestart = true): SessionMoves {
    const log: Log = { ...silentLog, warn: (message) => void this.warnings.push(message) };
    const beta = { run: "beta-1", peer: "10.1.2.5:3261", state: "up" } as LiveRecord;
    return new SessionMoves({
      clock: new ManualClock(),
      log,
      flows: {
        reaches: () => true,
        take: () => "not asked here",
        steer: (_client, _portal, owner) => void this.steered.push(owner ?? "nobody"),
        provoke: () => void this.provoked++,
        keep: (name, flows) => {
          assert.equal(name, "4711");
          if (this.kernelFails) throw new Error("no such file or directory (error 2)");
          this.kept = flows;
        },
        keepNoMore: (name) => {
          assert.equal(name, "4711");
          this.kept = null;
        },
      },
      messenger: {
        send: (to, kind, _body, _timeMs, told: (outcome: MessageOutcome) => void) => {
          assert.equal(to, "beta");
          this.told.push(kind);
          told(
            this.refuses.has(kind)
              ? { kind: "refused", reason: MessageRefusal.unknownKind, information: 0 }
              : { kind: "taken" },
          );
        },
      },
      messages: { listen: () => {} },
      member: { name: "alpha", id: "4711" },
      members: { find: () => this.betaIsDown ? null : beta, fellows: () => [], held: () => true, run },
      node: {
        depart: (_id, _owner, done) =>
          done({
            state,
            session,
            held: new Uint8Array(0),
            stay: () => {},
            gone: () => {},
            abort: () => {},
          }),
        endsOf: () => state,
        adopt: () => "not asked here",
        sendAway: () => true,
      },
      draining: () => false,
      forRestart: () => forRestart,
      handedOverFile: {
        path: "/state/handed-over.json",
        read: () => Promise.resolve(this.file),
        make: (text) => {
          if (this.diskFails) return Promise.reject(new Error("no space left on device"));
          if (this.file !== null) return Promise.resolve(false);
          this.file = text;
          return Promise.resolve(true);
        },
        remove: () => {
          if (this.file === null) return Promise.reject(new Deno.errors.NotFound());
          this.file = null;
          return Promise.resolve();
        },
      },
      logoutSeconds: 10,
    });
  }

  /** A process whose one session is at beta. */
  async moved(forRestart = true): Promise<SessionMoves> {
    const moves = this.start("alpha-1", forRestart);
    assert.equal((await moves.move(1, "beta")).kind, "moved");
    this.told.length = 0;
    return moves;
  }
}

Deno.test("a stop for a restart leaves its moved connections to the next process, whose start takes them up once", async () => {
  // Lost without it: the connections.
  const machine = new Machine();
  machine.file = "of a process long ago";
  const moves = await machine.moved();
  assert.equal(await moves.handOver(), 1);
  assert.deepEqual(machine.told, [MessageKind.moveKeep]);
  assert.deepEqual(machine.kept, [{ client: state.client, portal: state.portal, owner: "10.1.2.5" }]);
  await moves.sentAway(); // has nothing to wait for
  machine.told.length = 0;
  machine.steered.length = 0;
  await machine.start("alpha-2").resume();
  assert.deepEqual(machine.told, [MessageKind.moveResume]);
  assert.deepEqual(machine.steered, ["10.1.2.5"]);
  assert.equal(machine.kept, null);
  assert.equal(machine.file, null);
  machine.told.length = 0;
  await machine.start("alpha-3").resume();
  assert.deepEqual(machine.told, [], "there is nothing more to take up");
  assert.deepEqual(machine.warnings, []);
});

Deno.test("a stop that is not for a restart hands nothing over", async () => {
  // Lost without it: connections that wait for a process that is not to come.
  const machine = new Machine();
  const moves = await machine.moved(false);
  assert.equal(await moves.handOver(), 0);
  assert.deepEqual([machine.told, machine.kept, machine.file], [[], null, null]);
});

Deno.test("where kernel, disk or owner fail, the stop goes on as one without a restart", async () => {
  // Lost without it: a stop that fails, or owners that keep what nobody takes up.
  for (const what of ["kernelFails", "diskFails"] as const) {
    const machine = new Machine();
    const moves = await machine.moved();
    machine[what] = true;
    assert.equal(await moves.handOver(), 0, what);
    assert.deepEqual(machine.told, [MessageKind.moveKeep, MessageKind.moveKeep], "and told otherwise");
    assert.deepEqual([machine.kept, machine.file], [null, null]);
    assert.equal(machine.warnings.length, 1);
  }
  const machine = new Machine();
  const moves = await machine.moved();
  machine.refuses.add(MessageKind.moveKeep);
  assert.equal(await moves.handOver(), 0);
  assert.deepEqual([machine.kept, machine.file], [null, null]);
});

Deno.test("a damaged file, or none, takes what the kernel has kept away", async () => {
  // Lost without it: a start that fails, and rules that nobody knows of.
  for (const damage of [(text: string) => text.slice(1), () => "", () => null]) {
    const machine = new Machine();
    await (await machine.moved()).handOver();
    machine.file = damage(machine.file!);
    const none = machine.file === null;
    await machine.start("alpha-2").resume();
    assert.deepEqual([machine.kept, machine.file], [null, null]);
    assert.equal(machine.warnings.length, none ? 0 : 1);
    assert.ok(!machine.told.includes(MessageKind.moveResume));
  }
});

Deno.test("what its owner does not have any more is reset when the process comes back", async () => {
  // Lost without it: a client that waits for ever.
  for (const down of [true, false]) {
    const machine = new Machine();
    await (await machine.moved()).handOver();
    machine.betaIsDown = down;
    machine.refuses.add(MessageKind.moveResume);
    await machine.start("alpha-2").resume();
    assert.equal(machine.kept, null);
    assert.equal(machine.provoked, 1);
    if (!down) assert.equal(machine.steered.at(-1), "nobody");
  }
});
