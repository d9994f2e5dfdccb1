// One I/O worker: runs the sessions that the owner hands it, on its own use of the disks. Whatever it cannot decide itself
// the owner does (lib/device/worker_device_server.ts).

import { assert } from "../../base/assert.ts";
import type { BufferPool } from "../../base/buffer_pool.ts";
import type { BootClock, Clock, Timer } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { SharedRules } from "../../base/flow.ts";
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
  sendHeld,
  wholeUnit,
  wordsOf,
} from "../../device/task_messages.ts";
import { WorkerLoans } from "../../device/worker_loans.ts";
import { WorkerDeviceServer, type WorkerDisk, type WorkerUnit } from "../../device/worker_device_server.ts";
import { hasRoom } from "../../session/command_credit.ts";
import type { Departure } from "../../session/departure.ts";
import { OutputRings } from "../../session/output_ring.ts";
import { type ConnectionHost, TargetConnection } from "../../session/target_connection.ts";
import type { TargetDirectory, TargetPortal, TargetRecord } from "../../session/target_directory.ts";
import { type SessionIdentity, TargetSession } from "../../session/target_session.ts";
import { anotherThread, sessionOf } from "../../session/thread_changes.ts";
import type {
  DiskNews,
  NewSession,
  SessionBegins,
  SessionGoesOn,
  SessionOrdered,
  SessionRoom,
  ToOwner,
  ToWorker,
  UnitNews,
} from "./worker_messages.ts";

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
  /** Makes what connections are lent with. */
  readonly openLender: (rules: SharedRules) => void;
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
  /** Room that is kept for sessions on their way here: the bytes of each of their commands. */
  readonly #rooms = new Map<number, number>();
  /** What has waited of them. */
  readonly #held = new Map<number, Uint8Array<ArrayBuffer>[]>();
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
    if (words[0] === MessageKind.held) {
      this.#held.set(words[1]!, [...this.#held.get(words[1]!) ?? [], message.slice(8)]);
      return;
    }
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
      case "lend":
        return this.#parts.openLender(news.rules);
      case "unit":
        return this.#unit(news);
      case "begin":
        return this.#begin(news);
      case "askRoom":
        return this.#askRoom(news);
      case "giveUpRoom":
        return this.#giveUpRoom(news.id);
      case "goOn":
        return this.#goOn(news);
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
    const { portal, login, parameters } = news.handover;
    return this.#run(
      news,
      { portal, ...login },
      (identity, ended) => new TargetSession(identity, this.#parts.pool, parameters, login.cmdSn, ended),
    );
  }

  #run(
    news: NewSession,
    ends: Pick<SessionIdentity, "portal" | "isid" | "connectionId" | "initiatorName">,
    make: (identity: SessionIdentity, ended: () => void) => TargetSession,
  ): Running {
    const unit = this.#units.get(news.unit);
    assert(unit !== undefined, "a session came before its unit");
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
    const { id, tsih, relativeTargetPort, cell } = news;
    const { portal, isid, connectionId, initiatorName } = ends;
    const session = make(
      { id, tsih, isid, connectionId, initiatorName, target, portal, relativeTargetPort },
      () => this.#ended(id),
    );
    device.nexusGained();
    const running = { session, device, target, cell, connection: null!, portals: [] };
    this.#sessions.set(id, running);
    if (this.#timer === null) this.#showLater();
    return running;
  }

  /** Room for as many commands as a session may have, or none. */
  #askRoom({ id, firstBurstBytes }: SessionRoom): void {
    const { pool } = this.#parts;
    const commands = limits.commandsPerSessionMax;
    const granted = hasRoom(pool, commands, firstBurstBytes);
    if (granted) {
      for (let i = 0; i < commands; i++) pool.reserve(firstBurstBytes);
      this.#rooms.set(id, firstBurstBytes);
    }
    this.#tell({ kind: "room", id, granted });
  }

  #giveUpRoom(id: number): void {
    const firstBurstBytes = this.#rooms.get(id);
    this.#rooms.delete(id);
    if (firstBurstBytes === undefined) return;
    for (let i = 0; i < limits.commandsPerSessionMax; i++) this.#parts.pool.unreserve(firstBurstBytes);
  }

  #goOn(news: SessionGoesOn): void {
    const { home: { stream, session: moved }, portal, portals, id } = news;
    const { pool, adopt } = this.#parts;
    this.#giveUpRoom(id); // it takes of it what it needs, before anybody else can
    const running = this.#run(
      news,
      { portal, ...moved },
      (identity, ended) => sessionOf(moved, identity, pool, ended, null),
    );
    running.portals = portals;
    const { target, session } = running;
    adopt(stream, (s) => {
      const connection = TargetConnection.adopt(this, portal, s, moved, target, session, anotherThread);
      running.connection = connection;
      this.#connections.set(connection, id);
      return connection;
    });
    const held = this.#held.get(id) ?? [];
    this.#held.delete(id);
    for (const bytes of held) running.connection.feed(bytes);
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
    sendHeld(this.#parts.owner, id, held);
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
