// Commands for tests of a member, as an initiator sends them (SBC-3, SPC-4), and their sense data as text.

import type { CommandResult, InitiatorClient } from "../../lib/session/initiator/client.ts";

export const blockBytes = 512;

const be32 = (n: number) => [n >>> 24 & 0xff, n >>> 16 & 0xff, n >>> 8 & 0xff, n & 0xff];
const be64 = (n: number) => [...be32(Math.floor(n / 2 ** 32)), ...be32(n >>> 0)];

/** "good", "conflict", "6/29/00" (sense key, ASC, ASCQ in hexadecimal), or how the command ended without a status. */
export function verdict(result: CommandResult): string {
  if (result.outcome !== "completed") return result.outcome;
  if (result.status === 0) return "good";
  if (result.status === 0x18) return "conflict";
  if (result.status === 0x08) return "busy";
  if (result.status !== 2) return `status ${result.status}`;
  const { sense } = result;
  const hex = (n: number) => n.toString(16).padStart(2, "0");
  return `${(sense[2]! & 0xf).toString(16)}/${hex(sense[12]!)}/${hex(sense[13]!)}`;
}

export class Lun {
  constructor(readonly client: InitiatorClient) {}

  async write(lba: number, data: Uint8Array, fua = false): Promise<string> {
    const cdb = [0x8a, fua ? 8 : 0, ...be64(lba), ...be32(data.length / blockBytes), 0, 0];
    return verdict(await this.client.command(cdb, { dataOut: data }));
  }

  /** The data, or the verdict when it is not "good". */
  async read(lba: number, blocks: number): Promise<Uint8Array | string> {
    const cdb = [0x88, 0, ...be64(lba), ...be32(blocks), 0, 0];
    const result = await this.client.command(cdb, { dataInMax: blocks * blockBytes });
    const text = verdict(result);
    return text === "good" ? result.data : text;
  }

  /** As read(), but unit attentions are taken and passed over: other members come and go meanwhile. */
  async readPastAttentions(lba: number, blocks: number): Promise<Uint8Array | string> {
    for (;;) {
      const result = await this.read(lba, blocks);
      if (typeof result !== "string" || !result.startsWith("6/")) return result;
    }
  }

  async unmap(lba: number, blocks: number): Promise<string> {
    const list = new Uint8Array([0, 22, 0, 16, 0, 0, 0, 0, ...be64(lba), ...be32(blocks), 0, 0, 0, 0]);
    return verdict(await this.client.command([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], { dataOut: list }));
  }

  async sync(): Promise<string> {
    return verdict(await this.client.command([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
  }

  async testUnitReady(): Promise<string> {
    return verdict(await this.client.command([0, 0, 0, 0, 0, 0]));
  }

  /** Blocks of the unit. */
  async capacity(): Promise<number> {
    const result = await this.client.command([0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], {
      dataInMax: 32,
    });
    if (verdict(result) !== "good") throw new Error(`READ CAPACITY(16): ${verdict(result)}`);
    return Number(new DataView(result.data.buffer, result.data.byteOffset).getBigUint64(0)) + 1;
  }

  /** PERSISTENT RESERVE OUT. */
  async reserveOut(serviceAction: number, key: number, newKey = 0, type = 0, aptpl = false): Promise<string> {
    const list = new Uint8Array([...be64(key), ...be64(newKey), 0, 0, 0, 0, aptpl ? 1 : 0, 0, 0, 0]);
    const cdb = [0x5f, serviceAction, type, 0, 0, ...be32(list.length), 0];
    return verdict(await this.client.command(cdb, { dataOut: list }));
  }

  /** PERSISTENT RESERVE IN READ KEYS, and the type of READ RESERVATION (null: none). */
  async reservation(): Promise<{ keys: number[]; type: number | null }> {
    const read = async (action: number) => {
      const result = await this.client.command([0x5e, action, 0, 0, 0, 0, 0, 4, 0, 0], { dataInMax: 1024 });
      if (verdict(result) !== "good") throw new Error(`PERSISTENT RESERVE IN: ${verdict(result)}`);
      return new DataView(result.data.buffer, result.data.byteOffset, result.data.length);
    };
    const list = await read(0);
    const keys: number[] = [];
    for (let at = 8; at < 8 + list.getUint32(4); at += 8) keys.push(Number(list.getBigUint64(at)));
    const held = await read(1);
    return { keys, type: held.getUint32(4) === 0 ? null : held.getUint8(21) & 0xf };
  }

  /** Takes every pending unit attention; what they were. */
  async attentions(): Promise<string[]> {
    const seen: string[] = [];
    for (;;) {
      const text = await this.testUnitReady();
      if (!text.startsWith("6/")) return text === "good" ? seen : [...seen, text];
      seen.push(text);
    }
  }
}

/** A block range full of bytes that tell where they belong. */
export function pattern(blocks: number, seed: number): Uint8Array {
  const data = new Uint8Array(blocks * blockBytes);
  for (let i = 0; i < data.length; i++) data[i] = (i * 7 + seed * 31 + (i >> 9)) & 0xff;
  return data;
}
