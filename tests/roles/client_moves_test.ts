// Without these, a client could be reset or asked to log out where it need not be, or be awaited where it never comes.

import { strict as assert } from "node:assert";
import type { Machine } from "../../lib/base/machine.ts";
import { silentLog } from "../../lib/base/log.ts";
import { decodeIntent, type Intent, IntentRefusal, Intents } from "../../lib/balance/intents.ts";
import type { MessageOutcome } from "../../lib/forward/mod.ts";
import { ClientMoves, type ClientMovesParts, type MoveWish } from "../../lib/roles/target/client_moves.ts";
import type { MeteredSession } from "../../lib/roles/target/load_meter.ts";
import type { MoveOutcome } from "../../lib/shortcut/mod.ts";
import { settings } from "../balance/scene.ts";
import { ManualClock } from "./manual_clock.ts";

const own = 1;
const session: MeteredSession = {
  id: 7,
  initiator: "iqn.2026-11.net.plimsoll.test:host",
  isid: 0x800000000001,
  portal: "10.0.0.1:3260",
  client: "0123456789abcdef",
  image: 3,
  bornMs: 0,
  commandsPerS: 100,
  readBytesPerS: 0,
  writtenBytesPerS: 0,
  queue: 1,
  charge: 0,
  moves: 0,
  commands: 0,
  read: 0,
  written: 0,
  forwarded: 0,
};
const wish: MoveWish = {
  session,
  to: { name: "beta", tag: 2 },
  purpose: "balance",
  reason: "the load is spread anew",
  live: true,
  noLogout: null,
};

/** A member with two others that answer `consent`, and connections that move with `outcome`. */
class Scene {
  readonly clock = new ManualClock();
  readonly told: { to: string; intent: Intent }[] = [];
  readonly moved: string[] = [];
  readonly asked: number[] = [];
  readonly intents = new Intents();
  consent: MessageOutcome = { kind: "taken" };
  outcome: MoveOutcome = { kind: "moved", pauseMs: 12 };
  mbps = 1000;
  readonly moves = new ClientMoves(this.#parts(), {
    own,
    nameOf: (tag) => ["", "alpha", "beta", "gamma"][tag]!,
    ownLoad: () => ({ work: 300 }) as never,
    intents: this.intents,
    meter: { work: () => 100 },
    board: { sent: () => {} },
  });

  #parts(): ClientMovesParts {
    const fellow = (targetPortalGroupTag: number) =>
      ({ record: { targetPortalGroupTag }, live: {} }) as never;
    return {
      clock: this.clock,
      log: silentLog,
      machine: { linkMbps: () => this.mbps } satisfies Pick<Machine, "linkMbps">,
      settings: { ...settings, reportMs: 1000, logoutSeconds: 10, noRedirect: [] } as never,
      members: { fellows: () => [fellow(2), fellow(3)] },
      node: { sendAway: (id) => this.asked.push(id) > 0 },
      forwarding: {
        messenger: {
          send: (
            to: string,
            _kind: number,
            body: Uint8Array,
            _ms: number,
            told: (o: MessageOutcome) => void,
          ) => {
            this.told.push({ to, intent: decodeIntent(body)! });
            told(this.consent);
          },
        } as never,
      },
      moves: {
        move: (id, to) => {
          this.moved.push(`${id} ${to}`);
          return Promise.resolve(this.outcome);
        },
      },
    };
  }
}

Deno.test("a client goes with its connection, its destination alone is asked, and the next decision waits for the loads", async () => {
  const scene = new Scene();
  assert.deepEqual(await scene.moves.move(wish), { kind: "live", pauseMs: 12 });
  assert.deepEqual(scene.told.map(({ to, intent }) => [to, intent.to, intent.work, intent.moves]), [[
    "beta",
    2,
    100,
    1,
  ]]);
  assert.deepEqual([scene.moved, scene.asked, scene.moves.count], [["7 beta"], [], 1]);
  assert.ok(scene.moves.isLeaving(7));
  scene.clock.advance(4_001);
  assert.equal(scene.moves.underWay, 0);
});

Deno.test("a destination that refuses is not sent to, in neither way", async () => {
  const scene = new Scene();
  scene.consent = { kind: "refused", reason: IntentRefusal.loaded, information: 0 };
  const moved = await scene.moves.move(wish);
  assert.deepEqual(moved, {
    kind: "stays",
    reason: "it would be above the average itself",
    because: null,
  });
  assert.deepEqual([scene.moved, scene.asked, scene.moves.underWay], [[], [], 0]);
});

Deno.test("a connection that cannot go along: the initiator is asked to log out, and every member is told", async () => {
  const scene = new Scene();
  scene.outcome = { kind: "stays", reason: "its commands are not answered within 2000 ms" };
  assert.deepEqual(await scene.moves.move(wish), {
    kind: "logout",
    because: "its commands are not answered within 2000 ms",
  });
  assert.deepEqual(scene.told.map(({ to }) => to), ["beta", "gamma"]);
  assert.deepEqual(scene.asked, [7]);
  assert.equal(scene.intents.find(session, scene.clock.nowMs())?.to, 2);
});

Deno.test("who may not be asked to log out stays, and is not awaited any more", async () => {
  const scene = new Scene();
  scene.outcome = { kind: "stays", reason: "beta is down" };
  const moved = await scene.moves.move({ ...wish, noLogout: "it has a reservation" });
  assert.deepEqual(moved, { kind: "stays", reason: "it has a reservation", because: "beta is down" });
  const { to, intent } = scene.told.at(-1)!;
  assert.deepEqual([to, intent.to, intent.timeMs], ["beta", own, 0]);
  const there = new Intents();
  for (const told of scene.told) there.note(told.intent, 0);
  assert.deepEqual(there.expected(2, 0), { count: 0, work: 0 });
  assert.deepEqual([scene.asked, scene.moves.underWay], [[], 0]);
  // Without its connection it is not even tried.
  await scene.moves.move({ ...wish, live: false, noLogout: "it has a reservation" });
  assert.equal(scene.told.length, 2);
});

Deno.test("a reset is told, and asks nobody for anything more", async () => {
  const scene = new Scene();
  scene.outcome = { kind: "reset", reason: "nobody knows who has it" };
  assert.deepEqual(await scene.moves.move(wish), { kind: "reset", reason: "nobody knows who has it" });
  assert.deepEqual([scene.asked, scene.moves.underWay, scene.moves.count], [[], 0, 0]);
});

Deno.test("whose writes would fill the interface they go on coming in by is better off at another portal", () => {
  const scene = new Scene();
  const writes = (writtenBytesPerS: number) => scene.moves.suitsLive({ ...session, writtenBytesPerS });
  assert.deepEqual([writes(12_000_000), writes(13_000_000)], [true, false]); // of 125 MB/s
  scene.mbps = 0; // not known
  assert.equal(writes(13_000_000), true);
});
