// Without this, an engine may lose, reorder or invent bytes, or keep a buffer: every engine passes the same suite.

import { strict as assert } from "node:assert";
import { LentRange } from "../../lib/base/lent_range.ts";
import type { Network, Stream, StreamHandler } from "../../lib/base/network.ts";
import { addressOf } from "../../lib/io/native/libc.ts";
import { NativeNetwork } from "../../lib/io/native/network.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { turnLoop } from "./native_rig.ts";
import { shakySocketLibc } from "./shaky_libc.ts";

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
  "native, shaky": () => {
    const rig = turnLoop({ libc: shakySocketLibc() });
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

  test("a stream may send, end and abort from inside every callback", async (network) => {
    const { listener, client, server, accepted, connected } = await pair(network);
    const bytes = new Uint8Array(256).map((_, i) => i);
    let releases = 0;
    // The server answers from inside received(), more from inside released(), and ends from inside drained().
    accepted.onBytes = () => {
      server.send(bytes, 0, 4, {
        released: () => {
          releases++;
          if (releases === 1) server.send(bytes, 4, 4, { released: () => releases++ });
        },
      });
      accepted.drained = () => {
        if (releases === 2) server.end();
      };
    };
    client.send(bytes, 0, 1, null);
    await connected.until(() => connected.closedWith !== null);
    await accepted.until(() => accepted.closedWith !== null);
    assert.deepEqual(connected.bytes, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.equal(releases, 2);
    assert.equal(accepted.closedWith, "ended");
    await listener.close();

    const second = await pair(network);
    second.accepted.onBytes = () => second.server.abort();
    second.client.send(bytes, 0, 100, null);
    await second.accepted.until(() => second.accepted.closedWith !== null);
    await second.connected.until(() => second.connected.closedWith !== null);
    await second.listener.close();

    const third = await pair(network);
    let told = 0;
    for (let i = 0; i < 10; i++) {
      third.server.send(bytes, i, 1, {
        released: () => {
          if (++told === 3) third.server.abort();
        },
      });
    }
    await third.accepted.until(() => third.accepted.closedWith !== null);
    assert.equal(told, 10);
    assert.equal(third.server.pendingBytes, 0);
    await third.connected.until(() => third.connected.closedWith !== null);
    await third.listener.close();
  });

  test("a peer that does not read holds up nobody else, and its end releases everything", async (network) => {
    const streams: Stream[] = [];
    const handlers: Collector[] = [];
    const listener = await network.listen({ hostname: "127.0.0.1", port: 0 }, (stream) => {
      streams.push(stream);
      const handler = new Collector();
      handlers.push(handler);
      handler.onBytes = (bytes) => {
        const copy = bytes.slice();
        stream.send(copy, 0, copy.length, null);
      };
      return handler;
    });
    const mute = await Deno.connect({ hostname: "127.0.0.1", port: listener.address.port });
    await mute.write(new Uint8Array(1));
    while (handlers.length === 0 || handlers[0]!.total === 0) await new Promise((r) => setTimeout(r, 1));
    const block = new Uint8Array(1 << 20);
    let releases = 0;
    for (let i = 0; i < 32; i++) streams[0]!.send(block, 0, block.length, { released: () => releases++ });
    const echoed = new Collector();
    const echo = await network.connect(listener.address, 1000, () => echoed);
    for (let i = 1; i <= 200; i++) {
      echo.send(block, 0, 100, null);
      await echoed.until(() => echoed.total === i * 100);
    }
    assert.ok(streams[0]!.pendingBytes > 1 << 20, "32 MiB cannot lie in the kernel's buffers");
    mute.close(); // with unread bytes: a reset
    await handlers[0]!.until(() => handlers[0]!.closedWith !== null);
    assert.equal(releases, 32);
    assert.equal(streams[0]!.pendingBytes, 0);
    echo.end();
    await echoed.until(() => echoed.closedWith !== null);
    await handlers[1]!.until(() => handlers[1]!.closedWith !== null);
    assert.equal(handlers[1]!.closedWith, "closed by peer");
    await listener.close();
  });

  test("a refused connection is closed, and nothing is delivered after end()", async (network) => {
    const refusing = await network.listen({ hostname: "127.0.0.1", port: 0 }, () => null);
    const refused = new Collector();
    await network.connect(refusing.address, 1000, () => refused);
    await refused.until(() => refused.closedWith !== null);
    await refusing.close();

    const { listener, client, server, accepted, connected } = await pair(network);
    server.end();
    client.send(new Uint8Array(1000), 0, 1000, null);
    await connected.until(() => connected.closedWith !== null);
    await accepted.until(() => accepted.closedWith !== null);
    assert.equal(accepted.total, 0);
    await listener.close();
  });

  test("many connections at once each keep their bytes", async (network) => {
    const listener = await network.listen({ hostname: "127.0.0.1", port: 0 }, (stream) => {
      const echo = new Collector();
      echo.onBytes = (bytes) => {
        const copy = bytes.slice();
        stream.send(copy, 0, copy.length, null);
      };
      return echo;
    });
    await Promise.all(Array.from({ length: 64 }, async (_, n) => {
      const handler = new Collector();
      const stream = await network.connect(listener.address, 5000, () => handler);
      const bytes = new Uint8Array(5000).map((_, i) => (i * 31 + n) & 0xff);
      for (let at = 0; at < bytes.length; at += 100) stream.send(bytes, at, 100, null);
      await handler.until(() => handler.total === bytes.length);
      assert.deepEqual(handler.bytes, [...bytes]);
      stream.end();
      await handler.until(() => handler.closedWith !== null);
    }));
    await listener.close();
  });
}

Deno.test("native: without descriptors new connections wait, and the loop does not spin", async () => {
  const c = shakySocketLibc();
  let full = true;
  let accepts = 0;
  const rig = turnLoop({
    libc: {
      ...c,
      accept4: (...parameters) => {
        accepts++;
        return full ? -1 : c.accept4(...parameters);
      },
      errno: () => full ? 24 : c.errno(),
    },
  });
  const network = new NativeNetwork(rig.loop);
  const accepted = new Collector();
  const listener = await network.listen({ hostname: "127.0.0.1", port: 0 }, () => accepted);
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: listener.address.port });
  await connection.write(new Uint8Array([7]));
  await new Promise((resolve) => rig.loop.after(200, () => resolve(null)));
  assert.ok(accepts > 0 && accepts < 20, `${accepts} attempts to accept`);
  full = false;
  await accepted.until(() => accepted.total === 1);
  connection.close();
  await accepted.until(() => accepted.closedWith !== null);
  await listener.close();
  await rig.stop();
});

Deno.test({
  name: "native, shaky: what is lent arrives like what is sent, between it and in order",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const rig = turnLoop({ libc: shakySocketLibc() });
    const { listener, client, server, accepted, connected } = await pair(new NativeNetwork(rig.loop));
    const memory = new Uint8Array(1 << 20).map((_, i) => (i * 13) & 0xff);
    const range = new LentRange();
    range.address = addressOf(memory);
    range.lengthBytes = memory.length;
    const head = new Uint8Array(48).fill(0xaa);
    const released: number[] = [];
    const expected: number[] = [];
    for (let i = 0; i < 40; i++) {
      const length = 1 + (i * 7919) % 20_000;
      client.send(head, 0, 48, null);
      client.sendLent!(range, i * 512, length, { released: () => released.push(i) });
      expected.push(...head, ...memory.subarray(i * 512, i * 512 + length));
    }
    await accepted.until(() => accepted.total === expected.length);
    assert.deepEqual(accepted.bytes, expected);
    await connected.until(() => released.length === 40);
    assert.deepEqual(released, Array.from({ length: 40 }, (_, i) => i));
    // An address that cannot be read, as a mapped page of a disk that fails: the connection ends, the process does not.
    range.address = 8192;
    client.sendLent!(range, 0, 4096, { released: () => released.push(40) });
    await connected.until(() => connected.closedWith !== null);
    assert.equal(released.at(-1), 40);
    assert.match(connected.closedWith!, /address/i);
    server.abort();
    await accepted.until(() => accepted.closedWith !== null);
    await listener.close();
    await rig.stop();
  },
});

for (const call of ["readv", "sendmsg"] as const) {
  Deno.test(`native: a reset told by ${call} ends its connection once, releases all it held, and no other`, async () => {
    const c = shakySocketLibc();
    let errno = 0;
    let resetOf = -1;
    const reset =
      <P extends [number, ...unknown[]]>(real: (...parameters: P) => number) => (...parameters: P) => {
        errno = parameters[0] === resetOf ? (call === "readv" ? 104 : 32) : 0; // ECONNRESET, EPIPE
        return errno === 0 ? real(...parameters) : -1;
      };
    const descriptors: number[] = [];
    const rig = turnLoop({
      libc: {
        ...c,
        accept4: (...parameters) => {
          errno = 0;
          const fd = c.accept4(...parameters);
          if (fd >= 0) descriptors.push(fd);
          return fd;
        },
        [call]: reset(c[call] as (...parameters: [number, ...unknown[]]) => number),
        epoll_wait: (...parameters) => {
          errno = 0;
          return c.epoll_wait(...parameters);
        },
        errno: () => errno || c.errno(),
      },
    });
    const network = new NativeNetwork(rig.loop);
    const first = await pair(network);
    const second = await pair(network);
    resetOf = descriptors[0]!;
    let releases = 0;
    const block = new Uint8Array(1 << 20);
    for (let i = 0; i < 4; i++) first.server.send(block, 0, block.length, { released: () => releases++ });
    first.client.send(block, 0, 100, null);
    await first.accepted.until(() => first.accepted.closedWith !== null);
    assert.equal(releases, 4);
    assert.equal(first.server.pendingBytes, 0);
    await first.connected.until(() => first.connected.closedWith !== null);
    resetOf = -1; // the number may become another's
    second.client.send(block, 0, 100, null);
    await second.accepted.until(() => second.accepted.total === 100);
    assert.equal(second.accepted.closedWith, null, "the other connection ended too");
    second.client.end();
    await second.accepted.until(() => second.accepted.closedWith !== null);
    await second.listener.close();
    await first.listener.close();
    await rig.stop();
  });
}

Deno.test("portable: connections that come and go use the same buffers", async () => {
  // Without this, each end of a connection leaves 512 KiB to the garbage collector.
  const network = new PortableNetwork();
  for (let i = 0; i < 10; i++) {
    const { client, server, connected, accepted, listener } = await pair(network);
    server.send(new Uint8Array([1, 2, 3]), 0, 3, null);
    await connected.until(() => connected.total === 3);
    if (i % 2 === 0) client.abort();
    else client.end();
    server.end();
    await connected.until(() => connected.closedWith !== null);
    await accepted.until(() => accepted.closedWith !== null);
    await listener.close();
    assert.equal(network.idleBuffers, 4, "two ends, each with one to receive into and one to gather in");
  }
});
