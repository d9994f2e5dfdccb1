// A bench for reservations: tasks, nexuses, a store and a device server's hooks, all in memory and synchronous.

import type { PoolBuffer } from "../../lib/base/buffer_pool.ts";
import type { Nexus } from "../../lib/session/nexus.ts";
import type { Task } from "../../lib/session/task.ts";
import { type ReservationHooks, Reservations } from "../../lib/device/reservations.ts";
import { attentionsOf, isReset, losesTasks } from "../../lib/device/unit_news.ts";
import { decodeUnit, type UnitRecord } from "../../lib/device/unit_record.ts";
import { UnitTruth } from "../../lib/device/unit_truth.ts";
import type { SenseData } from "../../lib/wire/scsi/sense.ts";
import { type MemberUnitStore, UnitGroup } from "./unit_stores.ts";

export function nexus(initiator: string, id: number, port = 1): Nexus {
  return {
    id,
    initiatorName: `iqn.2026-01.test:${initiator}`,
    isid: 0x00023d000001,
    targetPortalGroupTag: port,
    relativeTargetPort: port,
    deviceServer: null as never,
    drop() {},
  };
}

export class FakeTask {
  readonly lunHigh = 0;
  readonly lunLow = 0;
  readonly initiatorTaskTag = 1;
  readonly attribute = 1;
  readonly cdb: DataView;
  expectedDataTransferLength = 0;
  readonly readExpected = false;
  readonly writeExpected = false;
  aborted = false;
  dataOut: PoolBuffer | null = null;
  dataOutLength = 0;
  dataIn: PoolBuffer | null = null;
  readonly lendable = false;
  lentIn = null;
  dataInLength = 0;
  sense: Uint8Array | null = null;
  scratch: unknown = null;
  receipt = 0;
  status: number | null = null;
  failed: SenseData | null = null;
  requested: number | null = null;
  bufferWanted: ((task: Task) => void) | null = null;
  holdBuffer = false;

  constructor(readonly nexus: Nexus, cdb: number[]) {
    const bytes = new Uint8Array(16);
    bytes.set(cdb);
    this.cdb = new DataView(bytes.buffer);
  }
  requestData(lengthBytes: number): void {
    this.requested = lengthBytes;
  }
  takeDataIn(lengthBytes: number, ready: (task: Task) => void): void {
    this.dataIn = poolBuffer(new Uint8Array(lengthBytes).fill(0xee));
    if (this.holdBuffer) this.bufferWanted = ready;
    else ready(this);
  }
  finish(status: number): void {
    if (this.status !== null) throw new Error("finished twice");
    this.status = status;
  }
  /** What the initiator gets. */
  get answer(): Uint8Array {
    return this.dataIn!.bytes.subarray(0, this.dataInLength);
  }
}

function poolBuffer(bytes: Uint8Array<ArrayBuffer>): PoolBuffer {
  return { bytes, view: new DataView(bytes.buffer), sizeClass: 12, out: true, promised: false, own: false };
}

export interface OutOptions {
  type?: number;
  scope?: number;
  key?: number;
  actionKey?: number;
  aptpl?: boolean;
  allTargetPorts?: boolean;
  transportIds?: Uint8Array[];
  /** Overrides the length in the CDB. */
  length?: number;
}

export class Bench {
  readonly logins: Nexus[] = [];
  readonly attentions: string[] = [];
  readonly store: MemberUnitStore;
  readonly truth: UnitTruth;
  readonly abortCalls: { nexuses: Nexus[]; except: Task; done: () => void }[] = [];
  readonly reservations: Reservations;

  constructor(stored: Uint8Array | null = null, registrationsMax?: number) {
    const hooks: ReservationHooks = {
      nexuses: () => this.logins.values(),
      relativeTargetPorts: () => [1, 2],
      mayDecide: () => true,
      committed: () => {},
      fail: (task, sense) => {
        (task as unknown as FakeTask).failed = sense;
        task.finish(2);
      },
    };
    this.store = new UnitGroup(stored).member(stored === null ? "run 1" : "run 2");
    this.truth = new UnitTruth(this.store, (record, changes, task, done) => {
      this.reservations.obey(record);
      for (const n of this.logins) {
        for (const sense of attentionsOf(n, changes, false)) {
          this.attentions.push(`${n.initiatorName.split(":")[1]} ${sense.asc.toString(16)}/${sense.ascq}`);
        }
      }
      const reset = changes?.every(({ event }) => isReset(event)) === true;
      const nexuses = reset ? [] : this.logins.filter((n) => losesTasks(n, changes));
      if (nexuses.length === 0) done();
      else this.abortCalls.push({ nexuses, except: task as Task, done });
    });
    this.reservations = new Reservations(this.truth, hooks, registrationsMax);
  }

  async start(): Promise<void> {
    await this.truth.start();
    this.reservations.obey(this.truth.record);
  }

  get stored(): UnitRecord {
    return decodeUnit(this.store.group.bytes!);
  }

  /** A LOGICAL UNIT RESET, as far as reservations go. */
  reset(): void {
    this.truth.change({
      decide: () => ({ event: "logicalUnitReset", reserver: null }),
      done: () => {},
      token: null,
    });
  }

  login(initiator: string, id: number, port = 1): Nexus {
    const n = nexus(initiator, id, port);
    this.logins.push(n);
    return n;
  }

  run(n: Nexus, ...cdb: number[]): FakeTask {
    const task = new FakeTask(n, cdb);
    this.reservations.execute(task);
    return task;
  }

  /** Starts a PERSISTENT RESERVE OUT and gives it its parameters. */
  out(n: Nexus, action: number, options: OutOptions = {}): FakeTask {
    const ids = options.transportIds;
    const idBytes = ids?.reduce((sum, id) => sum + id.length, 0) ?? 0;
    const bytes = new Uint8Array(ids === undefined ? 24 : 28 + idBytes);
    const view = new DataView(bytes.buffer);
    view.setUint32(4, options.key ?? 0);
    view.setUint32(12, options.actionKey ?? 0);
    bytes[20] = (ids ? 8 : 0) | (options.allTargetPorts ? 4 : 0) | (options.aptpl ? 1 : 0);
    if (ids !== undefined) {
      view.setUint32(24, idBytes);
      let at = 28;
      for (const id of ids) {
        bytes.set(id, at);
        at += id.length;
      }
    }
    return this.outBytes(n, action, bytes, options);
  }

  outBytes(n: Nexus, action: number, bytes: Uint8Array<ArrayBuffer>, options: OutOptions = {}): FakeTask {
    const length = options.length ?? bytes.length;
    const typeByte = ((options.scope ?? 0) << 4) | (options.type ?? 0);
    const task = new FakeTask(n, [0x5f, action, typeByte, 0, 0, 0, 0, length >>> 8, length & 255]);
    this.reservations.execute(task);
    if (task.requested !== null) this.deliver(task, bytes);
    return task;
  }

  deliver(task: FakeTask, bytes: Uint8Array<ArrayBuffer>): void {
    task.dataOut = poolBuffer(bytes);
    task.dataOutLength = Math.min(bytes.length, task.requested!);
    this.reservations.dataReceived(task);
  }
}

/** Lets promises that are settled run. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}
