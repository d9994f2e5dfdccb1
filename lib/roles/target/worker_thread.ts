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
  wordsOf,
} from "../../device/task_messages.ts";
import type { Handover } from "../../session/handover.ts";
import type { VendorNotice } from "../../session/nexus.ts";
import type {
  RemoteSession,
  SessionCounters,
  SessionOrder,
  SessionThread,
} from "../../session/remote_session.ts";
import type { ToOwner, ToWorker } from "./worker_messages.ts";

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
    const { identity } = session;
    const device = deviceOf(session);
    if (!this.#sessions.has(identity.id)) {
      this.#sessions.set(identity.id, session);
      session.cell = this.#parts.takeCell();
      for (let i = 0; i < Counter.count; i++) this.#parts.cells.setCounter(session.cell, i, 0);
      device.attach(session.nexus, session.cell);
    }
    this.tell({
      kind: "begin",
      id: identity.id,
      cell: session.cell,
      unit: device.unit,
      tsih: identity.tsih,
      relativeTargetPort: identity.relativeTargetPort,
      targetName: identity.target!.name,
      targetAlias: identity.target!.alias,
      handover,
    });
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
        assert(this.#tasks!.receive(words), "a worker sent a message that the owner does not know");
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

function deviceOf(session: RemoteSession): GatedDeviceServer {
  return session.identity.target!.deviceServer as GatedDeviceServer;
}
