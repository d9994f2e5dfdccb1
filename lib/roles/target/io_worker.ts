// One I/O worker: runs the sessions that the owner hands it, on its own use of the disks. Whatever it cannot decide itself
// the owner does (lib/device/worker_device_server.ts).

import { assert } from "../../base/assert.ts";
import type { BufferPool } from "../../base/buffer_pool.ts";
import type { BootClock, Clock, Timer } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import type { DetachedStream, Stream, StreamHandler } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import { OwnerCalls } from "../../device/owner_calls.ts";
import { PagePlaces } from "../../device/page_places.ts";
import { Counter, SharedCells, type SharedCellsMemory } from "../../device/shared_cells.ts";
import {
  controlOf,
  MessageKind,
  type MessagePort,
  sendControl,
  sendWordsAndBytes,
  wholeUnit,
  wordsOf,
} from "../../device/task_messages.ts";
import { WorkerLoans } from "../../device/worker_loans.ts";
import { WorkerDeviceServer, type WorkerDisk, type WorkerUnit } from "../../device/worker_device_server.ts";
import type { Departure } from "../../session/departure.ts";
import { OutputRings } from "../../session/output_ring.ts";
import { type ConnectionHost, TargetConnection } from "../../session/target_connection.ts";
import type { TargetDirectory, TargetPortal, TargetRecord } from "../../session/target_directory.ts";
import { TargetSession } from "../../session/target_session.ts";
import type {
  DiskNews,
  SessionBegins,
  SessionOrdered,
  ToOwner,
  ToWorker,
  UnitNews,
} from "./worker_messages.ts";

/** Far less than the ring between the threads holds. */
const heldPieceBytes = 128 * 1024;
/** How often the sessions' counters are shown to the owner, milliseconds. */
const countersMs = 100;

export interface IoWorkerParts {
  /** Its number among the workers beside the owner, from 0. */
  readonly index: number;
  readonly clock: Clock;
  /** That of the member's lease. */
  readonly bootClock: BootClock;
  readonly random: RandomSource;
  readonly log: Log;
  readonly cells: SharedCellsMemory;
  readonly owner: MessagePort;
  readonly pool: BufferPool;
  /** Where the pool's buffers lie. */
  readonly arena: { readonly address: number; readonly poolBytes: number };
  readonly adopt: (stream: DetachedStream, handler: (stream: Stream) => StreamHandler) => void;
  readonly openDisk: (news: DiskNews) => WorkerDisk;
  /** Memory that the owner has mapped. */
  readonly viewMemory: (address: number, sizeBytes: number) => ArrayBuffer;
}

interface Running {
  readonly session: TargetSession;
  readonly device: WorkerDeviceServer;
  readonly target: TargetRecord;
  readonly cell: number;
  connection: TargetConnection;
  /** Of its target, as its last login said. */
  portals: readonly TargetPortal[];
}

export class IoWorker implements ConnectionHost {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Log;
  readonly rings = new OutputRings();
  readonly directory: TargetDirectory;
  readonly #parts: IoWorkerParts;
  readonly #cells: SharedCells;
  readonly #calls: OwnerCalls;
  readonly #loans = new WorkerLoans();
  readonly #disks: (WorkerDisk | null)[] = new Array(limits.disksMax).fill(null);
  readonly #units = new Map<number, WorkerUnit>();
  readonly #sessions = new Map<number, Running>();
  /** By connection: the number of its session, also after the session has ended. */
  readonly #connections = new Map<TargetConnection, number>();
  #timer: Timer | null = null;

  constructor(parts: IoWorkerParts) {
    this.clock = parts.clock;
    this.random = parts.random;
    this.log = parts.log;
    this.#parts = parts;
    this.#cells = new SharedCells(parts.cells);
    this.#calls = new OwnerCalls(parts.owner);
    this.directory = {
      lookup: () => ({ kind: "unavailable" }), // logins are the owner's
      visible: (initiatorName) =>
        [...this.#sessions.values()]
          .filter(({ session }) => session.identity.initiatorName === initiatorName)
          .map(({ target }) => target),
      portalsOf: (target, portal) => this.#portalsOf(target) ?? [portal],
    };
    this.#tell({ kind: "ready", arena: parts.arena });
  }

  /** Takes a message of the owner. */
  receive(message: Uint8Array<ArrayBuffer>): void {
    const words = wordsOf(message);
    if (words[0] === MessageKind.recall) return this.#recall(words[2]!, words[1]!);
    if (words[0] === MessageKind.vacate) return this.#vacate(words[1]!, words[2]!, words[3]!);
    if (words[0] !== MessageKind.control) {
      assert(this.#calls.receive(message, words), "the owner sent a message that a worker does not know");
      return;
    }
    const news = controlOf(message) as ToWorker;
    switch (news.kind) {
      case "disk":
        this.#disks[news.index] = this.#parts.openDisk(news);
        this.#loans.addDisk(news.index, news.slots);
        return;
      case "unit":
        return this.#unit(news);
      case "begin":
        return this.#begin(news);
      case "order":
        return this.#order(news);
      case "notify":
        return this.#sessions.get(news.id)?.connection.notify(news.notice);
    }
  }

  // ConnectionHost.

  admit(): void {
    assert(false, "a worker was asked for a login");
  }

  loginOver(): void {}

  connectionClosed(connection: TargetConnection): void {
    const id = this.#connections.get(connection);
    if (id === undefined) return;
    this.#connections.delete(connection);
    this.#tell({ kind: "connectionClosed", id });
  }

  coldReset(session: TargetSession): void {
    this.#tell({ kind: "coldReset", id: session.identity.id });
  }

  // Inside.

  #unit(news: UnitNews): void {
    this.#units.set(news.number, {
      number: news.number,
      pageBytes: news.pageBytes,
      blockBytes: news.blockBytes,
      places: new PagePlaces(this.#parts.viewMemory(news.placesAddress, news.placesBytes)),
      disks: this.#disks,
      devices: new Set(),
    });
  }

  #begin(news: SessionBegins): void {
    const { handover } = news;
    const running = this.#sessions.get(news.id) ?? this.#make(news);
    this.#sessions.set(news.id, running);
    if (this.#timer === null) this.#showLater();
    running.portals = handover.portals;
    this.#parts.adopt(handover.stream, (stream) => {
      const { target, session } = running;
      const connection = TargetConnection.resume(this, stream, handover, target, session);
      running.connection = connection;
      this.#connections.set(connection, news.id);
      return connection;
    });
  }

  #make(news: SessionBegins): Running {
    const unit = this.#units.get(news.unit);
    assert(unit !== undefined, "a session came before its unit");
    const { handover } = news;
    const device = new WorkerDeviceServer(
      unit,
      news,
      this.#parts.index,
      this.#cells,
      this.#calls,
      this.#loans,
      limits.transferBytesMax,
      this.#parts.bootClock,
    );
    const access = { chap: null, mutual: null };
    const target = { name: news.targetName, alias: news.targetAlias, access, deviceServer: device };
    const identity = {
      id: news.id,
      tsih: news.tsih,
      isid: handover.login.isid,
      connectionId: handover.login.connectionId,
      initiatorName: handover.login.initiatorName,
      target,
      portal: handover.portal,
      relativeTargetPort: news.relativeTargetPort,
    };
    const { pool } = this.#parts;
    const session = new TargetSession(
      identity,
      pool,
      handover.parameters,
      handover.login.cmdSn,
      () => this.#ended(news.id),
    );
    device.nexusGained();
    return { session, device, target, cell: news.cell, connection: null!, portals: [] };
  }

  #portalsOf(target: TargetRecord): readonly TargetPortal[] | null {
    for (const running of this.#sessions.values()) if (running.target === target) return running.portals;
    return null;
  }

  #ended(id: number): void {
    const running = this.#sessions.get(id)!;
    this.#sessions.delete(id);
    running.device.nexusLost();
    this.#showCounters();
    this.#tell({ kind: "ended", id });
  }

  /** A session that has ended meanwhile needs no orders. */
  #order({ id, order, reason, value }: SessionOrdered): void {
    const running = this.#sessions.get(id);
    if (running === undefined) return;
    const { session, connection } = running;
    switch (order) {
      case "end":
        return session.end(reason);
      case "dismiss":
        return session.dismiss(reason);
      case "requestLogout":
        return connection.requestLogout(value);
      case "finishAndClose":
        return connection.finishAndClose(reason);
      case "abort":
        return connection.abort(reason);
      case "replace":
        return session.replaceConnection(value, (stays) => this.#tell({ kind: "replaced", id, stays }));
      case "comeHome":
        return connection.leaveThread((departure) => this.#left(id, departure));
    }
  }

  #left(id: number, departure: Departure<DetachedStream> | string): void {
    if (typeof departure === "string") return this.#tell({ kind: "staysThere", id, reason: departure });
    const { state, session, held } = departure;
    for (let at = 0; at < held.length; at += heldPieceBytes) {
      const piece = held.subarray(at, at + heldPieceBytes);
      sendWordsAndBytes(this.#parts.owner, [MessageKind.held, id], piece);
    }
    this.#tell({ kind: "comesHome", id, home: { stream: state, session } });
    departure.gone();
  }

  #recall(unit: number, token: number): void {
    for (const device of this.#units.get(unit)?.devices ?? []) device.surrender();
    this.#calls.recalled(unit, token);
  }

  #vacate(token: number, disk: number, number: number): void {
    const done = () => this.#calls.vacated(token);
    if (disk === wholeUnit) this.#loans.whenUnitEnded(number, done);
    else this.#loans.whenSlotEnded(disk, number, done);
  }

  /** While there are sessions. */
  #showLater(): void {
    this.#timer = this.clock.after(countersMs, () => {
      this.#timer = null;
      this.#showCounters();
      if (this.#sessions.size > 0) this.#showLater();
    });
  }

  #showCounters(): void {
    for (const { session, cell } of this.#sessions.values()) {
      this.#cells.setCounter(cell, Counter.commands, session.commandsDone);
      this.#cells.setCounter(cell, Counter.inFlight, session.active);
      this.#cells.setCounter(cell, Counter.bytesRead, session.bytesRead);
      this.#cells.setCounter(cell, Counter.bytesWritten, session.bytesWritten);
    }
  }

  #tell(news: ToOwner): void {
    sendControl(this.#parts.owner, news);
  }
}
