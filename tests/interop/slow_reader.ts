// An initiator that asks for much and reads little: one session that queues as many reads as the target's window lets in,
// and takes the answers as slowly as it is told. Like plain_initiator.ts it shares no line with lib/.

import { cdb16, loginKeys, loginRequest, loginText, split } from "./plain_initiator.ts";

let nextQualifier = 0;

export class SlowReader {
  #cmdSn = 0;
  #expStatSn = 0;
  #maxCmdSn = 0;
  #asked = 0;
  #answered = 0;
  #blocks = 0;
  /** Bytes that came and were not looked at yet. */
  #rest = new Uint8Array(0);
  readonly #chunk = new Uint8Array(262_144);

  private constructor(readonly connection: Deno.TcpConn) {}

  /** No unsolicited data is agreed on, so the window costs the target no room: it may open to its whole depth. */
  static async login(address: string, targetName: string): Promise<SlowReader> {
    const connection = await Deno.connect(split(address));
    const self = new SlowReader(connection);
    try {
      const keys = { ...loginKeys(targetName), InitialR2T: "Yes", ImmediateData: "No" };
      let text = loginText({ ...keys, InitiatorName: "iqn.2026-11.net.plimsoll.test:slow" });
      const qualifier = nextQualifier = (nextQualifier + 1) & 0xffff;
      for (let transit = false; !transit;) {
        const request = loginRequest(text, qualifier);
        request[11] = 0x77; // an ISID apart from PlainInitiator's
        new DataView(request.buffer).setUint32(28, self.#expStatSn);
        await self.#send(request);
        const header = await self.#pdu();
        const status = new DataView(header.buffer, header.byteOffset).getUint16(36);
        if (status !== 0) throw new Error(`Login was refused with status 0x${status.toString(16)}.`);
        transit = (header[1]! & 0x83) === 0x83;
        text = new Uint8Array(0);
      }
      self.#cmdSn = 1;
      await self.#takeAttention();
      return self;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  /** Commands that the target has let in and were not sent yet. */
  get window(): number {
    return Math.max(0, (this.#maxCmdSn - this.#cmdSn + 1) | 0);
  }

  /** Commands asked and not answered (as far as was read). */
  get outstanding(): number {
    return this.#asked - this.#answered;
  }

  /** Sends up to `count` reads of `blocks` blocks, no more than the window has room for. Returns how many. */
  async ask(count: number, blocks: number, lba = 0): Promise<number> {
    const many = Math.min(count, this.window);
    const pdus = new Uint8Array(many * 48);
    this.#blocks = blocks;
    for (let i = 0; i < many; i++) {
      this.#command(pdus.subarray(i * 48), cdb16(0x88, lba, blocks), blocks * 512);
    }
    await this.#send(pdus);
    return many;
  }

  /** Reads up to `bytesMax` bytes from the socket and looks at the answers in them. */
  async take(bytesMax: number): Promise<void> {
    const count = await this.connection.read(this.#chunk.subarray(0, Math.min(bytesMax, this.#chunk.length)));
    if (count === null) throw new Error("The target closed the connection.");
    this.#feed(this.#chunk.subarray(0, count));
    for (let pdu = this.#next(); pdu !== null; pdu = this.#next()) this.#look(pdu);
  }

  close(): void {
    try {
      this.connection.close();
    } catch {
      // It may be closed already.
    }
  }

  /** The unit attention that a new nexus has. */
  async #takeAttention(): Promise<void> {
    for (let tries = 0; tries < 4; tries++) {
      const pdu = new Uint8Array(48);
      this.#command(pdu, [0, 0, 0, 0, 0, 0], 0);
      await this.#send(pdu);
      const answer = await this.#pdu();
      this.#answered++;
      if (answer[0] === 0x21 && answer[3] === 0) return;
    }
    throw new Error("Unit attentions without end.");
  }

  #command(pdu: Uint8Array, cdb: readonly number[], readBytes: number): void {
    const view = new DataView(pdu.buffer, pdu.byteOffset);
    pdu[0] = 0x01;
    pdu[1] = 0x81 | (readBytes > 0 ? 0x40 : 0); // final, simple task
    view.setUint32(16, this.#asked++);
    view.setUint32(20, readBytes);
    view.setUint32(24, this.#cmdSn);
    view.setUint32(28, this.#expStatSn);
    pdu.set(cdb, 32);
    this.#cmdSn = this.#cmdSn + 1 >>> 0;
  }

  #look(pdu: Uint8Array): void {
    const opcode = pdu[0]! & 0x3f;
    if (opcode === 0x25) {
      if ((pdu[1]! & 1) === 0) return;
    } else if (opcode === 0x20) return; // a ping, which a slow reader leaves alone
    else if (opcode !== 0x21 || pdu[2] !== 0 || pdu[3] !== 0) {
      throw new Error(`A read of ${this.#blocks} blocks was answered with ${pdu.slice(0, 48).toHex()}.`);
    }
    this.#answered++;
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) done += await this.connection.write(bytes.subarray(done));
  }

  /** The next PDU, waited for. */
  async #pdu(): Promise<Uint8Array> {
    for (;;) {
      const pdu = this.#next();
      if (pdu !== null) return pdu;
      const count = await this.connection.read(this.#chunk);
      if (count === null) throw new Error("The target closed the connection.");
      this.#feed(this.#chunk.subarray(0, count));
    }
  }

  #feed(bytes: Uint8Array): void {
    const joined = new Uint8Array(this.#rest.length + bytes.length);
    joined.set(this.#rest);
    joined.set(bytes, this.#rest.length);
    this.#rest = joined;
  }

  /** A whole PDU of what has come, its numbers counted; null when there is none. */
  #next(): Uint8Array | null {
    const rest = this.#rest;
    if (rest.length < 48) return null;
    const view = new DataView(rest.buffer, rest.byteOffset);
    const length = 48 + rest[4]! * 4 + (((view.getUint32(4) & 0xff_ffff) + 3) & ~3);
    if (rest.length < length) return null;
    this.#rest = rest.subarray(length);
    this.#maxCmdSn = view.getUint32(32);
    const withStatus = (rest[0]! & 0x3f) !== 0x25 || (rest[1]! & 1) === 1;
    const news = (rest[0]! & 0x3f) === 0x20 && view.getUint32(16) === 0xffff_ffff;
    if (withStatus && !news) this.#expStatSn = view.getUint32(24) + 1 >>> 0;
    return rest.subarray(0, length);
  }
}
