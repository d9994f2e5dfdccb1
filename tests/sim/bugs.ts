// Bugs that are planted on purpose: each must be found, or the simulator looks away there. Those of the store are order points
// left out; the others stand in the place of a shipped part, or change one of its methods while a run lasts.

import { BufferPool, type PoolBuffer } from "../../lib/base/buffer_pool.ts";
import { Command } from "../../lib/device/command.ts";
import { LostWrites } from "../../lib/device/lost_writes.ts";
import { Reservations } from "../../lib/device/reservations.ts";
import { UnitAttentions } from "../../lib/device/unit_attention.ts";
import { UnitReplica } from "../../lib/device/unit_replica.ts";
import { BlockOperation } from "../../lib/extent/operation.ts";
import type { Metadata } from "../../lib/meta/metadata.ts";
import { keys } from "../../lib/meta/records.ts";
import { Router } from "../../lib/route/router.ts";
import { Link } from "../../lib/session/link.ts";
import { SessionBuffers } from "../../lib/session/session_buffers.ts";
import { TargetSession } from "../../lib/session/target_session.ts";
import type { OrderPoint } from "../../lib/store/mod.ts";
import type { MoveOrderPoint } from "../../lib/balance/page_move.ts";
import type { Plant } from "./machine.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Weather } from "./weather.ts";
import type { World } from "./simulation.ts";

export interface Bug {
  readonly name: string;
  /** Seeds within which it is found; few when absent. */
  readonly seedsMax?: number;
  /** The first seed to be played: those from 1 on pass, and would only take time. */
  readonly firstSeed?: number;
  /** Makes the seed's weather such that it is met. */
  readonly weather?: (weather: Weather) => Weather;
  readonly plant?: () => Plant;
  /** Puts something in the place of a shipped part; returns what takes it away again. */
  readonly install?: (world: World) => () => void;
}

/** Puts another function in the place of a method; undone by what it returns. */
function replace<F>(prototype: object, name: string, make: (original: F) => F): () => void {
  const methods = prototype as Record<string, F>;
  const original = methods[name]!;
  methods[name] = make(original);
  return () => methods[name] = original;
}

const omitting = (name: string, point: OrderPoint): Bug => ({
  name,
  plant: () => ({ omit: new Set([point]) }),
});

/** Pages move all the time, clients flush what they write, and power fails. */
function groupThatMoves(weather: Weather): Weather {
  return {
    ...weather,
    machines: 2,
    grouped: true,
    movePauseMs: 2,
    churn: false,
    spareBytes: 16_777_216,
    network: { ...weather.network, latencyMs: 0.02, jitterMs: 0.1, stallMeanMs: 0, halfOpenMeanMs: 0 },
    metadata: { ...weather.metadata, latencyMs: 0.01, jitterMs: 1, slowChance: 0 },
    machine: { ...weather.machine, killMeanMs: 0, powerLossMeanMs: 150, stopMeanMs: 0, downMs: 10 },
    client: { ...weather.client, reserveChance: 0, flushChance: 0.1 },
    commands: 500,
  };
}

const omittingInMoves = (name: string, point: MoveOrderPoint): Bug => ({
  name,
  seedsMax: 500,
  plant: () => ({ omitInMoves: new Set([point]) }),
});

/** Changes what happens to block operations of one kind; `go` is the way they should have gone. */
function blockOperations(
  name: string,
  kind: BlockOperation["kind"],
  act: (operation: BlockOperation, go: (operation: BlockOperation) => void, scheduler: Scheduler) => void,
): Bug {
  return {
    name,
    install: ({ scheduler }) =>
      replace<Router["submit"]>(
        Router.prototype,
        "submit",
        (submit) =>
          function (this: Router, operation: BlockOperation) {
            const go = (o: BlockOperation) => submit.call(this, o);
            if (operation.kind === kind) act(operation, go, scheduler);
            else go(operation);
          },
      ),
  };
}

function copyOf(operation: BlockOperation): BlockOperation {
  const { image, page, offsetBytes, lengthBytes, blockBytes, buffer, bufferStart, durable, kind } = operation;
  const kept = buffer.slice(bufferStart, bufferStart + lengthBytes);
  return Object.assign(new BlockOperation(), {
    kind,
    image,
    page,
    offsetBytes,
    lengthBytes,
    blockBytes,
    durable,
    buffer: kept,
    bufferStart: 0,
    done: () => {},
  });
}

function end(operation: BlockOperation, outcome: BlockOperation["outcome"]): void {
  operation.outcome = outcome;
  operation.done(operation);
}

/** Without the page's lock between comparing and writing. */
function tornCompareAndWrite(operation: BlockOperation, go: (operation: BlockOperation) => void): void {
  const { lengthBytes, buffer, bufferStart } = operation;
  const part = copyOf(operation);
  part.kind = "read";
  part.done = () => {
    if (part.outcome !== "done") return end(operation, part.outcome);
    const differs = part.buffer.findIndex((byte, i) => byte !== buffer[bufferStart + i]);
    operation.miscompareOffsetBytes = differs;
    if (differs >= 0) return end(operation, "miscompare");
    part.kind = "write";
    part.buffer = buffer.slice(bufferStart + lengthBytes, bufferStart + 2 * lengthBytes);
    part.done = () => end(operation, part.outcome);
    go(part);
  };
  go(part);
}

class LeakyPool extends BufferPool {
  #gives = 0;
  override give(buffer: PoolBuffer): void {
    if (++this.#gives % 50 !== 0) super.give(buffer);
  }
}

/** Keeps no reservations, and says that it does. */
function forgetful(inner: Metadata): Metadata {
  const reservation = keys.unit(1).slice(0, -1);
  return new Proxy(inner, {
    get(target, name) {
      if (name !== "commit") {
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      }
      return (...[compares, changes]: Parameters<Metadata["commit"]>) =>
        changes.some(({ key }) => key.startsWith(reservation))
          ? Promise.resolve({ succeeded: true, revision: 0 })
          : target.commit(compares, changes);
    },
  });
}

export const bugs: readonly Bug[] = [
  omitting("flush-skipped", "flushOnFlush"),
  omitting("fua-not-durable", "flushOnDurable"),
  omitting("flush-covers-later-writes", "flushAfterWrites"),
  { ...omitting("entry-after-acknowledgement", "entryBeforeAck"), firstSeed: 225 },
  omitting("slot-reused-unpunched", "punchBeforeReuse"),
  blockOperations("unmap-does-nothing", "unmap", (operation) => end(operation, "done")),
  blockOperations("compare-and-write-torn", "compareAndWrite", tornCompareAndWrite),
  blockOperations("write-acknowledged-early", "write", (operation, go, scheduler) => {
    const late = copyOf(operation);
    scheduler.at(20, () => go(late));
    end(operation, "done");
  }),
  blockOperations("write-sent-twice", "write", (operation, go, scheduler) => {
    const twin = copyOf(operation);
    scheduler.at(30, () => go(twin));
    go(operation);
  }),
  {
    name: "logout-before-tasks-end",
    install: () =>
      replace<TargetSession["whenIdle"]>(TargetSession.prototype, "whenIdle", () => (then) => then()),
  },
  {
    name: "reset-attention-lost",
    install: () =>
      replace<UnitAttentions["add"]>(
        UnitAttentions.prototype,
        "add",
        (add) =>
          function (this: UnitAttentions, condition) {
            if (condition.asc !== 0x29 || condition.ascq !== 0x03) add.call(this, condition);
          },
      ),
  },
  {
    name: "lost-writes-untold",
    install: () => replace<LostWrites["mustTell"]>(LostWrites.prototype, "mustTell", () => () => false),
  },
  {
    // An answer counts as heard when it is made, whatever becomes of it.
    name: "told-unheard",
    firstSeed: 95,
    install: () =>
      replace<Command["check"]>(Command.prototype, "check", (check) =>
        function (this: Command, sense) {
          const { receipt, nexus } = this.task;
          if (receipt !== 0) nexus.deviceServer.acknowledged(nexus, receipt);
          check.call(this, sense);
        }),
  },
  {
    name: "reservation-unchecked-for-writes",
    install: () =>
      replace<Reservations["check"]>(
        Reservations.prototype,
        "check",
        (check) =>
          function (this: Reservations, nexus, cdb) {
            return cdb.getUint8(0) === 0x8a || check.call(this, nexus, cdb);
          },
      ),
  },
  {
    // A member says that it obeys a change of the unit, and gets to it later.
    name: "good-before-peers-obey",
    seedsMax: 500,
    install: ({ scheduler }) =>
      replace<UnitReplica["follow"]>(
        UnitReplica.prototype,
        "follow",
        (follow) =>
          function (this: UnitReplica, number, done) {
            scheduler.at(30, () => follow.call(this, number, () => {}));
            done(true);
          },
      ),
  },
  { name: "reservations-not-kept", plant: () => ({ metadata: forgetful }) },
  {
    name: "overflow-untold",
    install: () =>
      replace<Command["good"]>(Command.prototype, "good", (good) =>
        function (this: Command) {
          const { task } = this;
          task.dataInLength = Math.min(task.dataInLength, task.expectedDataTransferLength);
          good.call(this);
        }),
  },
  {
    name: "status-number-skipped",
    install: () => {
      let stamps = 0;
      return replace<Link["stampStatus"]>(
        Link.prototype,
        "stampStatus",
        (stamp) =>
          function (this: Link, at) {
            if (++stamps % 100 === 0) this.statSn++;
            stamp.call(this, at);
          },
      );
    },
  },
  {
    name: "wakeup-lost",
    install: () => {
      let waits = 0;
      return replace<SessionBuffers["wait"]>(
        SessionBuffers.prototype,
        "wait",
        (wait) =>
          function (this: SessionBuffers, lengthBytes, granted) {
            const now = this.take(lengthBytes);
            if (now !== null) granted(now);
            else if (++waits % 3 !== 0) return wait.call(this, lengthBytes, granted);
            return () => {}; // every third that waits is waited for by nobody
          },
      );
    },
  },
  {
    name: "buffer-leaked",
    plant: () => ({ pool: (bytesMax, ownBytesMax) => new LeakyPool(bytesMax, ownBytesMax) }),
  },
  {
    ...omittingInMoves("early-epoch", "settleBeforeRoute"),
    weather: groupThatMoves,
    firstSeed: 195,
    seedsMax: 100,
  },
  omittingInMoves("double-home", "decideBeforeRoute"),
  omittingInMoves("freed-too-early", "routeBeforeFree"),
];

export function bugNamed(name: string): Bug {
  const bug = bugs.find((b) => b.name === name);
  if (bug !== undefined) return bug;
  throw new Error(`There is no bug "${name}". Take one of: ${bugs.map((b) => b.name).join(", ")}.`);
}
