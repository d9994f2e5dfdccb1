// Without this, an engine may lose, reorder or invent bytes, or keep a buffer: every engine passes the same suite.

import { strict as assert } from "node:assert";
import type { Network, Stream, StreamHandler } from "../../lib/base/network.ts";
import { NativeNetwork } from "../../lib/io/native/network.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { turnLoop } from "./native_rig.ts";

interface Engine {
  readonly network: Network;
  stop(): Promise<void>;
}

const engines: Record<string, () => Engine> = {
  portable: () => ({ network: new PortableNetwork(), stop: () => Promise.resolve() }),
  native: () => {
    const rig = turnLoop();
    return { network: new NativeNetwork(rig.loop), stop: rig.stop };
  },
};

/** Collects what arrives; `until` resolves when a condition holds after some event. */
class Collector implements StreamHandler {
  bytes: number[] = [];
  total = 0;
  keep = true;
  closedWith: string | null = null;
  drains = 0;
  #waiters: { holds: () => boolean; resolve: () => void }[] = [];
  onBytes: ((bytes: Uint8Array) => void) | null = null;

  received(buffer: Uint8Array, _view: DataView, start: number, end: number): void {
    this.total += end - start;
    if (this.keep) { for (let i = start; i < end; i++) this.bytes.push(buffer[i]!); }
    this.onBytes?.(buffer.subarray(start, end));
    buffer.fill(0xee, start, end); // the engine must not hand these out again
    this.#check();
  }
  drained(): void {
    this.drains++;
    this.#check();
  }
  closed(reason: string): void {
    assert.equal(this.closedWith, null, "closed twice");
    this.closedWith = reason;
    this.#check();
  }
  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push({ holds, resolve });
      this.#check();
    });
  }
  #check(): void {
    for (const w of this.#waiters) if (w.holds()) w.resolve();
  }
}

async function pair(network: Network, hostname = "127.0.0.1") {
  const accepted = new Collector();
  let server!: Stream;
  const listener = await network.listen({ hostname, port: 0 }, (stream) => {
    server = stream;
    return accepted;
  });
  const connected = new Collector();
  const client = await network.connect(listener.address, 1000, () => connected);
  client.send(new Uint8Array([0]), 0, 1, null);
  await accepted.until(() => accepted.total === 1);
  accepted.bytes = [];
  accepted.total = 0;
  return { listener, client, connected, server, accepted };
}

for (const [name, make] of Object.entries(engines)) {
  const test = (words: string, body: (network: Network) => Promise<void>) =>
    Deno.test(`${name}: ${words}`, async () => {
      const engine = make();
      try {
        await body(engine.network);
      } finally {
        await engine.stop();
      }
    });

  test("bytes arrive in order from many segments, and every release is told once, in order", async (network) => {
    const { listener, client, server, accepted, connected } = await pair(network);
    const released: number[] = [];
    const buffer = new Uint8Array(1000).map((_, i) => i & 0xff);
    for (let i = 0; i < 500; i++) client.send(buffer, i, 2, { released: () => released.push(i) });
    assert.equal(client.pendingBytes, 1000);
    await accepted.until(() => accepted.total === 1000);
    assert.deepEqual(
      accepted.bytes,
      Array.from({ length: 500 }, (_, i) => [i & 0xff, (i + 1) & 0xff]).flat(),
    );
    await connected.until(() => connected.drains > 0);
    assert.deepEqual(released, Array.from({ length: 500 }, (_, i) => i));
    assert.equal(client.pendingBytes, 0);
    client.end();
    await accepted.until(() => accepted.closedWith !== null);
    server.abort();
    await connected.until(() => connected.closedWith !== null);
    await listener.close();
  });

  test("a peer that reads slowly gets 32 MiB whole, and pendingBytes shows the backlog", async (network) => {
    const { listener, client, server, accepted, connected } = await pair(network, "::1");
    accepted.keep = false;
    const block = new Uint8Array(1 << 20).map((_, i) => (i * 7) & 0xff);
    let wrong = 0;
    let at = 0;
    accepted.onBytes = (bytes) => {
      for (const byte of bytes) if (byte !== (((at++) % block.length) * 7 & 0xff)) wrong++;
    };
    for (let i = 0; i < 32; i++) client.send(block, 0, block.length, null);
    assert.equal(client.pendingBytes, 32 << 20);
    client.end(); // what is queued still leaves
    await accepted.until(() => accepted.total === 32 << 20);
    assert.equal(wrong, 0);
    server.end();
    await connected.until(() => connected.closedWith !== null);
    await accepted.until(() => accepted.closedWith !== null);
    await listener.close();
  });

  test("abort drops what is queued, tells releases, and both handlers learn of the end once", async (network) => {
    const { listener, client, accepted, connected } = await pair(network);
    let releases = 0;
    const block = new Uint8Array(8 << 20);
    for (let i = 0; i < 4; i++) client.send(block, 0, block.length, { released: () => releases++ });
    client.abort();
    client.send(block, 0, 10, { released: () => releases++ });
    await connected.until(() => connected.closedWith !== null);
    await accepted.until(() => accepted.closedWith !== null);
    assert.equal(releases, 5);
    assert.equal(client.pendingBytes, 0);
    await listener.close();
  });

  test("an address in use and a port where nobody listens are clear errors", async (network) => {
    const listener = await network.listen({ hostname: "127.0.0.1", port: 0 }, () => null);
    await assert.rejects(network.listen(listener.address, () => null), /in use/i);
    await listener.close();
    await assert.rejects(
      network.connect(listener.address, 1000, () => new Collector()),
      /Cannot connect to 127\.0\.0\.1:\d+: .+/,
    );
  });
}
