// An iSCSI initiator that shares no line with lib/: offsets are typed from the figures of RFC 7143 §11, so that it finds
// what both ends of the project would misread alike. No digests, no CHAP, one connection; tests only.

import { copyCdb, copyList, copySegment, copyTarget } from "../device/copy_lists.ts";

export interface Answer {
  readonly status: number;
  readonly data: Uint8Array;
  readonly sense: Uint8Array;
}

export class ConnectionLost extends Error {
  override name = "ConnectionLost";
}

const isid = [0x80, 0x12, 0x34, 0x56];
let isidQualifier = Math.floor(Math.random() * 60_000);

export function loginText(pairs: Record<string, string>): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(Object.entries(pairs).map(([k, v]) => `${k}=${v}\0`).join(""));
}

/** One Login Request of a new session, operational stage to full feature phase (§11.12). */
export function loginRequest(text: Uint8Array, qualifier = 0): Uint8Array<ArrayBuffer> {
  const pdu = new Uint8Array(48 + ((text.length + 3) & ~3));
  const view = new DataView(pdu.buffer);
  pdu[0] = 0x43;
  pdu[1] = 0x87; // transit, current stage 1, next stage 3
  view.setUint32(4, text.length);
  pdu.set(isid, 8);
  view.setUint16(12, qualifier);
  view.setUint32(16, 0x1000);
  view.setUint32(24, 1); // CmdSN
  pdu.set(text, 48);
  return pdu;
}

export function loginKeys(targetName: string): Record<string, string> {
  return {
    InitiatorName: "iqn.2026-11.net.plimsoll.test:plain",
    TargetName: targetName,
    SessionType: "Normal",
    HeaderDigest: "None",
    DataDigest: "None",
    MaxConnections: "1",
    InitialR2T: "No",
    ImmediateData: "Yes",
    MaxRecvDataSegmentLength: "262144",
    MaxBurstLength: "1048576",
    FirstBurstLength: "65536",
    DefaultTime2Wait: "2",
    DefaultTime2Retain: "0",
    MaxOutstandingR2T: "1",
    ErrorRecoveryLevel: "0",
  };
}

export function split(address: string): Deno.ConnectOptions {
  const colon = address.lastIndexOf(":");
  return { hostname: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}

interface Pending {
  readonly write: Uint8Array | null;
  readonly read: Uint8Array;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

export class PlainInitiator {
  #cmdSn = 1;
  #expStatSn = 0;
  #maxCmdSn = 1;
  #tag = 1;
  #pending = new Map<number, Pending>();
  #waiting: (() => void)[] = [];
  #sending: Promise<unknown> = Promise.resolve();
  #lost: Error | null = null;
  #reader: Promise<void> = Promise.resolve();
  /** What the target declared for data sent to it. */
  #segmentBytesMax = 8192;
  #buffer = new Uint8Array(0);
  /** The unit's name, the first of page 83h (SPC-4 §7.8.5), once it was asked for. */
  #naa: number[] | null = null;

  private constructor(readonly connection: Deno.TcpConn) {}

  static async login(address: string, targetName: string): Promise<PlainInitiator> {
    const connection = await Deno.connect(split(address));
    connection.setNoDelay(true);
    const self = new PlainInitiator(connection);
    try {
      await self.#login(targetName);
    } catch (e) {
      connection.close();
      throw e;
    }
    self.#reader = self.#receive().catch((e) => self.#lose(e));
    return self;
  }

  async #login(targetName: string): Promise<void> {
    const qualifier = isidQualifier = (isidQualifier + 1) & 0xffff;
    let text = loginText(loginKeys(targetName));
    for (let round = 0; round < 8; round++) {
      const request = loginRequest(text, qualifier);
      new DataView(request.buffer).setUint32(28, this.#expStatSn);
      await this.#write(request);
      const { header, data } = await this.#pdu();
      if ((header[0]! & 0x3f) !== 0x23) throw new Error(`Login was answered by opcode ${header[0]}.`);
      const view = new DataView(header.buffer);
      const status = view.getUint16(36);
      if (status !== 0) {
        throw new Error(`Login was refused with status 0x${status.toString(16).padStart(4, "0")}.`);
      }
      this.#expStatSn = view.getUint32(24) + 1 >>> 0;
      this.#cmdSn = view.getUint32(28);
      this.#maxCmdSn = view.getUint32(32);
      const told = new TextDecoder().decode(data);
      const segment = /MaxRecvDataSegmentLength=(\d+)/.exec(told);
      if (segment) this.#segmentBytesMax = Number(segment[1]);
      if ((header[1]! & 0x83) === 0x83) return;
      text = new Uint8Array(0);
    }
    throw new Error("Login did not come to an end in 8 rounds.");
  }

  async #read(bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    while (this.#buffer.length < bytes) {
      const chunk = new Uint8Array(262_144);
      const n = await this.connection.read(chunk);
      if (n === null) throw new ConnectionLost("The target closed the connection.");
      const joined = new Uint8Array(this.#buffer.length + n);
      joined.set(this.#buffer);
      joined.set(chunk.subarray(0, n), this.#buffer.length);
      this.#buffer = joined;
    }
    const out = this.#buffer.slice(0, bytes);
    this.#buffer = this.#buffer.subarray(bytes);
    return out;
  }

  async #pdu(): Promise<{ header: Uint8Array<ArrayBuffer>; data: Uint8Array<ArrayBuffer> }> {
    const header = await this.#read(48);
    const length = (header[5]! << 16) | (header[6]! << 8) | header[7]!;
    const data = await this.#read(header[4]! * 4 + ((length + 3) & ~3));
    return { header, data: data.subarray(header[4]! * 4, header[4]! * 4 + length) };
  }

  #write(...parts: Uint8Array[]): Promise<void> {
    const bytes = new Uint8Array(parts.reduce((sum, p) => sum + ((p.length + 3) & ~3), 0));
    let at = 0;
    for (const p of parts) {
      bytes.set(p, at);
      at += (p.length + 3) & ~3;
    }
    const task = this.#sending.then(async () => {
      for (let done = 0; done < bytes.length;) done += await this.connection.write(bytes.subarray(done));
    });
    this.#sending = task.catch(() => {});
    return task;
  }

  #lose(error: unknown): void {
    this.#lost ??= error instanceof Error ? error : new Error(String(error));
    const lost = new ConnectionLost(`The connection is gone: ${this.#lost.message}`);
    for (const p of this.#pending.values()) p.reject(lost);
    this.#pending.clear();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #receive(): Promise<void> {
    for (;;) {
      const { header, data } = await this.#pdu();
      const view = new DataView(header.buffer);
      const opcode = header[0]! & 0x3f;
      const tag = view.getUint32(16);
      this.#maxCmdSn = view.getUint32(32);
      for (const wake of this.#waiting.splice(0)) wake();
      // R2T and Data-In without status do not advance StatSN (§11.8, §11.7.4).
      if (
        opcode !== 0x31 && !(opcode === 0x25 && (header[1]! & 1) === 0) &&
        !(opcode === 0x20 && tag === 0xffff_ffff)
      ) {
        this.#expStatSn = view.getUint32(24) + 1 >>> 0;
      }
      const pending = this.#pending.get(tag);
      if (opcode === 0x25 && pending) {
        pending.read.set(data, view.getUint32(40));
        if ((header[1]! & 1) === 1) this.#finish(tag, header[3]!, new Uint8Array(0));
      } else if (opcode === 0x21 && pending) {
        if (header[2] !== 0) throw new Error(`SCSI Response with response code ${header[2]}.`);
        this.#finish(tag, header[3]!, data.slice(2));
      } else if (opcode === 0x31 && pending) {
        await this.#answerR2t(view, tag, pending);
      } else if (opcode === 0x20) {
        if (view.getUint32(20) !== 0xffff_ffff) await this.#answerPing(header);
      } else if (opcode === 0x26) {
        throw new ConnectionLost("Logged out.");
      } else {
        throw new Error(`Unexpected PDU with opcode 0x${opcode.toString(16)}: ${header.toHex()}.`);
      }
    }
  }

  #finish(tag: number, status: number, sense: Uint8Array): void {
    const pending = this.#pending.get(tag)!;
    this.#pending.delete(tag);
    pending.resolve({ status, sense, data: pending.read });
  }

  async #answerR2t(r2t: DataView, tag: number, pending: Pending): Promise<void> {
    const begin = r2t.getUint32(40);
    const end = begin + r2t.getUint32(44);
    let dataSn = 0;
    for (let at = begin; at < end; at += this.#segmentBytesMax) {
      const to = Math.min(end, at + this.#segmentBytesMax);
      const header = new Uint8Array(48);
      const view = new DataView(header.buffer);
      header[0] = 0x05;
      header[1] = to === end ? 0x80 : 0;
      view.setUint32(4, to - at);
      view.setUint32(16, tag);
      view.setUint32(20, r2t.getUint32(20));
      view.setUint32(28, this.#expStatSn);
      view.setUint32(36, dataSn++);
      view.setUint32(40, at);
      await this.#write(header, pending.write!.subarray(at, to));
    }
  }

  async #answerPing(ping: Uint8Array): Promise<void> {
    const header = new Uint8Array(48);
    const view = new DataView(header.buffer);
    header[0] = 0x40;
    header[1] = 0x80;
    header.set(ping.subarray(8, 16), 8);
    view.setUint32(16, 0xffff_ffff);
    header.set(ping.subarray(20, 24), 20);
    view.setUint32(24, this.#cmdSn);
    view.setUint32(28, this.#expStatSn);
    await this.#write(header);
  }

  /** One SCSI command to LUN 0, once the window has room. Rejects with ConnectionLost when no answer can come. */
  async command(
    cdb: readonly number[],
    data: { write?: Uint8Array; readBytes?: number } = {},
  ): Promise<Answer> {
    while (this.#lost === null && ((this.#maxCmdSn - this.#cmdSn) | 0) < 0) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#lost !== null) throw new ConnectionLost(`The connection is gone: ${this.#lost.message}`);
    const write = data.write ?? null;
    const immediate = write === null
      ? new Uint8Array(0)
      : write.subarray(0, Math.min(this.#segmentBytesMax, 65_536));
    const tag = this.#tag++;
    const header = new Uint8Array(48);
    const view = new DataView(header.buffer);
    header[0] = 0x01;
    header[1] = 0x80 | (write ? 0x20 : 0) | (data.readBytes ? 0x40 : 0) | 1; // final, simple task
    view.setUint32(4, immediate.length);
    view.setUint32(16, tag);
    view.setUint32(20, write ? write.length : data.readBytes ?? 0);
    view.setUint32(24, this.#cmdSn);
    view.setUint32(28, this.#expStatSn);
    header.set(cdb, 32);
    this.#cmdSn = this.#cmdSn + 1 >>> 0;
    const answered = new Promise<Answer>((resolve, reject) => {
      this.#pending.set(tag, { write, read: new Uint8Array(data.readBytes ?? 0), resolve, reject });
    });
    answered.catch(() => {});
    try {
      await this.#write(header, immediate);
    } catch (e) {
      this.#lose(e);
    }
    return await answered;
  }

  /** A command that must end with GOOD; unit attentions (a new nexus has one) are taken and the command sent again. */
  async good(
    cdb: readonly number[],
    data: { write?: Uint8Array; readBytes?: number } = {},
  ): Promise<Uint8Array> {
    for (let tries = 0; tries < 8; tries++) {
      const answer = await this.command(cdb, data);
      if (answer.status === 0) return answer.data;
      if (answer.status !== 2 || senseKey(answer.sense) !== 6) {
        throw new Error(
          `CDB ${
            new Uint8Array(cdb).toHex()
          } ended with status ${answer.status}, sense ${answer.sense.toHex()}.`,
        );
      }
    }
    throw new Error("Unit attentions without end.");
  }

  read(lba: number, blocks: number, blockBytes = 512): Promise<Uint8Array> {
    return this.good(cdb16(0x88, lba, blocks), { readBytes: blocks * blockBytes });
  }

  async write(lba: number, bytes: Uint8Array, blockBytes = 512): Promise<void> {
    await this.good(cdb16(0x8a, lba, bytes.length / blockBytes), { write: bytes });
  }

  async unmap(lba: number, blocks: number): Promise<void> {
    const list = new Uint8Array(24);
    const view = new DataView(list.buffer);
    view.setUint16(0, 22);
    view.setUint16(2, 16);
    view.setBigUint64(8, BigInt(lba));
    view.setUint32(16, blocks);
    await this.good([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], { write: list });
  }

  /** EXTENDED COPY within the unit, at most 65535 blocks. */
  async copy(from: number, to: number, blocks: number): Promise<void> {
    this.#naa ??= [...(await this.good([0x12, 1, 0x83, 0, 255, 0], { readBytes: 255 })).subarray(8, 16)];
    const list = copyList([copyTarget(this.#naa)], [copySegment(from, to, blocks)]);
    await this.good(copyCdb(list.length), { write: list });
  }

  async flush(): Promise<void> {
    await this.good([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  }

  /** Ends the connection without a word. */
  async close(): Promise<void> {
    try {
      this.connection.close();
    } catch {
      // It may be closed already.
    }
    await this.#reader;
  }
}

export function cdb16(opcode: number, lba: number, blocks: number): number[] {
  const cdb = new Uint8Array(16);
  const view = new DataView(cdb.buffer);
  cdb[0] = opcode;
  view.setBigUint64(2, BigInt(lba));
  view.setUint32(10, blocks);
  return [...cdb];
}

export function senseKey(sense: Uint8Array): number {
  return (sense[0]! & 0x7f) >= 0x72 ? sense[1]! & 0xf : sense[2]! & 0xf;
}

/** Additional sense code and qualifier as one number. */
export function senseCode(sense: Uint8Array): number {
  return (sense[0]! & 0x7f) >= 0x72 ? sense[2]! << 8 | sense[3]! : sense[12]! << 8 | sense[13]!;
}
