// Transcripts: a text file of what the initiator does ("> …") and what comes of it ("< …" from the target, "! …" at the
// device server and the connection). The lines after a ">" are compared; UPDATE=1 in the environment writes them anew.
//
//   > connect [n]             a new connection (the first is 1); following lines are its own
//   > login|command|… k=v …   a PDU with these fields; `data=N` bytes, `text: K=V K=V`, `cdb=HEX`, `piece=N` cuts it
//   > finish ITT STATUS       the device server finishes a task it holds
//   > tick MS | peer closes | on N | stop | drop NAME | slow | manage done | raw HEX

import { strict as assert } from "node:assert";
import { build, describe, type Digests, split, textData } from "./pdus.ts";
import { type FakeStream, FakeWorld } from "./fake_world.ts";

export async function runTranscript(file: URL): Promise<void> {
  const before = await Deno.readTextFile(file);
  const after = play(before);
  if (Deno.env.get("UPDATE") === "1") await Deno.writeTextFile(file, after);
  else assert.equal(after, before);
}

class Player {
  readonly world = new FakeWorld();
  readonly streams = new Map<number, FakeStream>();
  readonly digests = new Map<number, Digests>();
  readonly closed = new Set<number>();
  at = 1;

  act(line: string): string[] {
    const out: string[] = [];
    this.#do(line.slice(2).trim());
    for (const event of this.world.device.takeEvents()) out.push(`! ${event}`);
    for (const [number, stream] of this.streams) {
      const who = number === 1 ? "" : `[${number}] `;
      const digests = this.digests.get(number) ?? { header: false, data: false };
      for (const response of split(stream.takeOutput(), digests)) out.push(`< ${who}${describe(response)}`);
      for (const event of this.world.device.takeEvents()) out.push(`! ${event}`);
      if (stream.state === "closed" && !this.closed.has(number)) {
        this.closed.add(number);
        out.push(`! ${who}closed`);
      }
    }
    return out;
  }

  #do(line: string): void {
    const words = line.split(/\s+/);
    const stream = () => this.streams.get(this.at)!;
    switch (words[0]) {
      case "connect": {
        this.at = Number(words[1] ?? 1);
        const made = this.world.connect(40_000 + this.at);
        assert.ok(made !== null, "refused");
        this.streams.set(this.at, made);
        return;
      }
      case "on":
        this.at = Number(words[1]);
        return;
      case "finish": {
        const task = this.world.device.tasks.get(Number(words[1]));
        assert.ok(task, `the device holds no task ${words[1]}`);
        return this.world.device.finish(task, Number(words[2]));
      }
      case "tick":
        return this.world.clock.advance(Number(words[1]));
      case "peer":
        return stream().peerCloses();
      case "stop":
        return this.world.node.stop(() => this.world.device.events.push("stopped"));
      case "drop":
        return this.world.node.dropTarget(words[1]!, "the volume was deleted");
      case "slow":
        this.world.device.slowAborts = true;
        this.world.device.slowManage = true;
        return;
      case "manage":
        return this.world.device.finishManage();
      case "digests":
        this.digests.set(this.at, { header: line.includes("header"), data: line.includes("data") });
        return;
      case "raw":
        return stream().deliver(Uint8Array.from(words[1]!.match(/../g)!.map((h) => Number.parseInt(h, 16))));
      default:
        return this.#send(words[0]!, line);
    }
  }

  #send(kind: string, line: string): void {
    const [head, text] = line.split(" text:");
    const fields: Record<string, number> = {};
    let data = text === undefined ? undefined : textData(text.trim().split(/\s+/).filter((t) => t !== ""));
    let cdb: Uint8Array | undefined;
    let ahs: Uint8Array | undefined;
    let piece = Infinity;
    let damage = "";
    for (const word of head!.trim().split(/\s+/).slice(1)) {
      const [key, value] = word.split("=") as [string, string];
      if (key === "data") data = Uint8Array.from({ length: Number(value) }, (_, i) => i & 0xff);
      else if (key === "cdb") cdb = hex(value);
      else if (key === "ahs") ahs = hex(value);
      else if (key === "piece") piece = Number(value);
      else if (key === "damage") damage = value;
      else fields[key] = value === "none" ? 0xffff_ffff : Number(value);
    }
    const bytes = build(
      { kind, fields, ...(cdb && { cdb }), ...(data && { data }), ...(ahs && { ahs }) },
      this.digests.get(this.at),
    );
    if (damage === "header") bytes[20]! ^= 1;
    if (damage === "data") bytes[bytes.length - 5]! ^= 1;
    this.streams.get(this.at)!.deliver(bytes, piece);
  }
}

function hex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g)!.map((h) => Number.parseInt(h, 16)));
}

/** The transcript with the lines that really come of it. */
export function play(text: string): string {
  const player = new Player();
  const out: string[] = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("<") || line.startsWith("!")) continue;
    out.push(line);
    if (!line.startsWith(">")) continue;
    try {
      out.push(...player.act(line));
    } catch (error) {
      throw new Error(`at "${line}": ${(error as Error).stack}`);
    }
  }
  return out.join("\n");
}
