// The owner's end of one I/O worker: its sessions and their commands.

import { assert } from "../../base/assert.ts";
import type { GatedDeviceServer } from "../../device/gated_device_server.ts";
import type { Buffers } from "../../device/remote_task.ts";
import { RemoteTasks } from "../../device/remote_tasks.ts";
import { Counter, type SharedCells } from "../../device/shared_cells.ts";
import {
  controlOf,
  MessageKind,
  type MessagePort,
  sendControl,
  sendHeld,
  wordsOf,
} from "../../device/task_messages.ts";
import type { Handover, Homecoming } from "../../session/handover.ts";
import type { VendorNotice } from "../../session/nexus.ts";
import type {
  RemoteSession,
  SessionCounters,
  SessionOrder,
  SessionThread,
} from "../../session/remote_session.ts";
import type { TargetPortal } from "../../session/target_directory.ts";
import type { NewSession, ToOwner, ToWorker } from "./worker_messages.ts";

/** What a worker's end needs of the data plane. */
export interface WorkerThreadParts {
  readonly cells: SharedCells;
  readonly port: MessagePort;
  /** The worker's data buffers, once it has said where they lie. */
  readonly viewArena: (arena: { readonly address: number; readonly poolBytes: number }) => Buffers;
  readonly takeCell: () => number;
  readonly giveCell: (cell: number) => void;
  readonly recalled: (token: number) => void;
  readonly vacated: (token: number) => void;
  readonly left: (unit: number) => void;
  readonly connectionClosed: (session: RemoteSession) => void;
  readonly sessionEnded: (session: RemoteSession) => void;
  readonly coldReset: (session: RemoteSession) => void;
}

export class WorkerThread implements SessionThread {
  readonly ready: Promise<void>;
  #isReady!: () => void;
  readonly #parts: WorkerThreadParts;
  readonly #sessions = new Map<number, RemoteSession>();
  /** Sessions that have ended, and have a connection that has not closed. */
  readonly #lingering = new Map<number, RemoteSession>();
  /** Who asked for room for a session. */
  readonly #rooms = new Map<number, (granted: boolean) => void>();
  #tasks: RemoteTasks | null = null;

  constructor(parts: WorkerThreadParts) {
    this.#parts = parts;
    this.ready = new Promise((resolve) => this.#isReady = resolve);
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  get connections(): number {
    let count = 0;
    for (const session of this.#sessions.values()) count += session.connections;
    for (const session of this.#lingering.values()) count += session.connections;
    return count;
  }

  tell(news: ToWorker): void {
    sendControl(this.#parts.port, news);
  }

  // SessionThread.

  begin(session: RemoteSession, handover: Handover): void {
    if (!this.#sessions.has(session.identity.id)) this.#add(session, 0, 0, 0);
    this.tell({ kind: "begin", ...identityOf(session), handover });
  }

  askRoom(id: number, firstBurstBytes: number, told: (granted: boolean) => void): void {
    this.#rooms.set(id, told);
    this.tell({ kind: "askRoom", id, firstBurstBytes });
  }

  giveUpRoom(id: number): void {
    this.tell({ kind: "giveUpRoom", id, firstBurstBytes: 0 });
  }

  goOn(session: RemoteSession, home: Homecoming, portals: readonly TargetPortal[], held: Uint8Array): void {
    const { id, portal } = session.identity;
    const { commands, bytesRead, bytesWritten } = home.session;
    this.#add(session, commands, bytesRead, bytesWritten);
    sendHeld(this.#parts.port, id, held);
    this.tell({ kind: "goOn", ...identityOf(session), portal, portals, home });
  }

  #add(session: RemoteSession, commands: number, bytesRead: number, bytesWritten: number): void {
    const { cells, takeCell } = this.#parts;
    this.#sessions.set(session.identity.id, session);
    const cell = session.cell = takeCell();
    cells.setCounter(cell, Counter.inFlight, 0);
    cells.setCounter(cell, Counter.commands, commands);
    cells.setCounter(cell, Counter.bytesRead, bytesRead);
    cells.setCounter(cell, Counter.bytesWritten, bytesWritten);
    deviceOf(session).attach(session.nexus, cell);
  }

  order(session: RemoteSession, order: SessionOrder, reason: string, value: number): void {
    this.tell({ kind: "order", id: session.identity.id, order, reason, value });
  }

  notify(session: RemoteSession, notice: VendorNotice): void {
    this.tell({ kind: "notify", id: session.identity.id, notice });
  }

  counters({ cell }: RemoteSession): SessionCounters {
    const { cells } = this.#parts;
    return {
      commandsDone: cells.counter(cell, Counter.commands),
      active: cells.counter(cell, Counter.inFlight),
      bytesRead: cells.counter(cell, Counter.bytesRead),
      bytesWritten: cells.counter(cell, Counter.bytesWritten),
    };
  }

  /** Takes a message of the worker. */
  receive(message: Uint8Array<ArrayBuffer>): void {
    const words = wordsOf(message);
    switch (words[0]) {
      case MessageKind.control:
        return this.#control(controlOf(message) as ToOwner);
      case MessageKind.recalled:
        return this.#parts.recalled(words[2]!);
      case MessageKind.vacated:
        return this.#parts.vacated(words[1]!);
      case MessageKind.left:
        return this.#parts.left(words[1]!);
      case MessageKind.held:
        return this.#sessions.get(words[1]!)!.heldCame(message.subarray(8));
      default:
        assert(this.#tasks!.receive(message, words), "a worker sent a message that the owner does not know");
    }
  }

  #control(news: ToOwner): void {
    if (news.kind === "ready") {
      this.#tasks = new RemoteTasks(this.#parts.port, this.#parts.viewArena(news.arena), (id) => {
        const session = this.#sessions.get(id)!;
        return { nexus: session.nexus, device: deviceOf(session) };
      });
      return this.#isReady();
    }
    if (news.kind === "room") {
      const told = this.#rooms.get(news.id)!;
      this.#rooms.delete(news.id);
      return told(news.granted);
    }
    const session = this.#sessions.get(news.id) ?? this.#lingering.get(news.id);
    assert(session !== undefined, "a worker told of a session that it does not have");
    switch (news.kind) {
      case "replaced":
        return session.replaced(news.stays);
      case "staysThere":
        return session.staysThere(news.reason);
      case "comesHome":
        deviceOf(session).detach(session.nexus);
        return session.cameHome(news.home);
      case "connectionClosed":
        this.#parts.connectionClosed(session);
        if (session.connections === 0) this.#lingering.delete(news.id);
        return;
      case "ended":
        this.#sessions.delete(news.id);
        if (session.connections > 0) this.#lingering.set(news.id, session);
        session.hasEnded();
        this.#parts.giveCell(session.cell);
        return this.#parts.sessionEnded(session);
      case "coldReset":
        return this.#parts.coldReset(session);
    }
  }
}

/** What a thread must know of a session's nexus. */
function identityOf(session: RemoteSession): NewSession {
  const { id, tsih, relativeTargetPort, target } = session.identity;
  const { cell } = session;
  const { unit } = deviceOf(session);
  return { id, cell, unit, tsih, relativeTargetPort, targetName: target!.name, targetAlias: target!.alias };
}

function deviceOf(session: RemoteSession): GatedDeviceServer {
  return session.identity.target!.deviceServer as GatedDeviceServer;
}
