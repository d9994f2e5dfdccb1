// The two ends of native_bench.ts: a server that answers 16-byte requests with a 48-byte header and data from a disk, and
// a client that keeps `depth` requests under way. Each runs a native loop of its own.

import type { DiskOperation } from "../../lib/base/disk.ts";
import type { Stream, StreamHandler } from "../../lib/base/network.ts";
import { openNativeDisk } from "../../lib/io/native/open_disk.ts";
import { DiskEngine } from "../../lib/io/native/disk_engine.ts";
import { NativeLoop } from "../../lib/io/native/loop.ts";
import { NativeNetwork } from "../../lib/io/native/network.ts";

export interface BenchJob {
  readonly role: "server" | "client";
  readonly path: string;
  readonly direct: boolean;
  readonly slowCalls: "auto" | "io_uring" | "threads";
  readonly port: number;
  readonly depth: number;
  readonly connections: number;
  readonly bytes: number;
  readonly write: boolean;
  readonly seconds: number;
  readonly cells: Int32Array<SharedArrayBuffer>; // 0: stop
}

export interface BenchResult {
  readonly kind: "ready" | "done";
  readonly port: number;
  readonly operations: number;
  readonly cpuSeconds: number;
  readonly latenciesUs: number[];
  readonly note: string;
}

const requestBytes = 16;
const headerBytes = 48;

const rusage = Deno.dlopen("libc.so.6", { getrusage: { parameters: ["i32", "buffer"], result: "i32" } });

/** CPU seconds of this thread (user and system). */
function cpuSeconds(): number {
  const longs = new BigInt64Array(18);
  rusage.symbols.getrusage(1, new Uint8Array(longs.buffer));
  return Number(longs[0]! + longs[2]!) + Number(longs[1]! + longs[3]!) / 1e6;
}

class Request implements DiskOperation {
  kind: "read" | "write" = "read";
  offsetBytes = 0;
  lengthBytes = 0;
  buffer: Uint8Array;
  bufferStart = 0;
  errno = 0;
  header = new Uint8Array(4096);
  constructor(readonly session: ServerSession, bytes: number) {
    this.buffer = new Uint8Array(bytes);
    this.lengthBytes = bytes;
  }
  done = (): void => this.session.answer(this);
  released = (): void => void this.session.idle.push(this);
}

class ServerSession implements StreamHandler {
  readonly idle: Request[] = [];
  #partial = 0;
  #dataLeft = 0;
  readonly #own = new Uint8Array(requestBytes);
  readonly #ownView = new DataView(this.#own.buffer);
  #request: Request | null = null;
  constructor(
    readonly stream: Stream,
    readonly submit: (operation: Request) => void,
    readonly job: BenchJob,
    readonly counter: { operations: number },
  ) {}
  received(buffer: Uint8Array, view: DataView, start: number, end: number): void {
    let at = start;
    while (at < end) {
      if (this.#dataLeft > 0) {
        const take = Math.min(this.#dataLeft, end - at);
        this.#request!.buffer.set(buffer.subarray(at, at + take), this.job.bytes - this.#dataLeft);
        this.#dataLeft -= take;
        at += take;
        if (this.#dataLeft === 0) this.submit(this.#request!);
      } else if (this.#partial === 0 && end - at >= requestBytes) {
        this.#begin(view, at);
        at += requestBytes;
      } else {
        this.#own[this.#partial++] = buffer[at++]!;
        if (this.#partial === requestBytes) {
          this.#partial = 0;
          this.#begin(this.#ownView, 0);
        }
      }
    }
  }
  #begin(view: DataView, at: number): void {
    const request = this.idle.pop() ?? new Request(this, this.job.bytes);
    request.offsetBytes = view.getFloat64(at);
    this.#request = request;
    if (this.job.write) {
      request.kind = "write";
      this.#dataLeft = this.job.bytes;
    } else this.submit(request);
  }
  answer(request: Request): void {
    if (request.errno !== 0) throw new Error(`errno ${request.errno}`);
    this.counter.operations++;
    if (this.job.write) return this.stream.send(request.header, 0, headerBytes, request);
    this.stream.send(request.header, 0, headerBytes, null);
    this.stream.send(request.buffer, 0, this.job.bytes, request);
  }
  drained(): void {}
  closed(): void {}
}

class Client implements StreamHandler {
  stream!: Stream;
  #got = 0;
  readonly #answer: number;
  readonly #requests = new Uint8Array(1 << 20);
  readonly #view = new DataView(this.#requests.buffer);
  readonly #data: Uint8Array;
  readonly #sentAt: number[] = [];
  #next = 0;
  constructor(
    readonly loop: NativeLoop,
    readonly job: BenchJob,
    readonly blocks: number,
    readonly counter: { operations: number; latencies: number[] },
  ) {
    this.#answer = headerBytes + (job.write ? 0 : job.bytes);
    this.#data = new Uint8Array(job.bytes);
  }
  start(): void {
    for (let i = 0; i < this.job.depth; i++) this.#ask();
  }
  #ask(): void {
    const at = this.#next * requestBytes;
    this.#next = (this.#next + 1) % (this.#requests.length / requestBytes);
    this.#view.setFloat64(at, Math.floor(Math.random() * this.blocks) * this.job.bytes);
    this.stream.send(this.#requests, at, requestBytes, null);
    if (this.job.write) this.stream.send(this.#data, 0, this.job.bytes, null);
    this.#sentAt.push(this.loop.nowMs());
  }
  received(_buffer: Uint8Array, _view: DataView, start: number, end: number): void {
    this.#got += end - start;
    while (this.#got >= this.#answer) {
      this.#got -= this.#answer;
      const sent = this.#sentAt.shift()!;
      if ((this.counter.operations++ & 15) === 0) {
        this.counter.latencies.push((this.loop.nowMs() - sent) * 1000);
      }
      if (this.job.cells[0] === 0) this.#ask();
    }
  }
  drained(): void {}
  closed(): void {}
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<BenchJob>) => Promise<void>;
  postMessage(result: BenchResult): void;
  close(): void;
};

scope.onmessage = async (event) => {
  const job = event.data;
  const loop = new NativeLoop();
  const network = new NativeNetwork(loop);
  const running = loop.run();
  const tell = (result: BenchResult) => scope.postMessage(result);
  const counter = { operations: 0, latencies: [] as number[] };
  const watch = (done: () => void) => {
    loop.after(50, () => {
      if (job.cells[0] === 0) return watch(done);
      loop.after(100, done);
    });
  };
  if (job.role === "server") {
    const engine = DiskEngine.open(loop, { slowCalls: job.slowCalls });
    const disk = openNativeDisk(engine, job.path, { direct: job.direct });
    const listener = await network.listen(
      { hostname: "127.0.0.1", port: 0 },
      (stream) => new ServerSession(stream, (r) => disk.submit(r), job, counter),
    );
    const before = cpuSeconds();
    tell({
      kind: "ready",
      port: listener.address.port,
      operations: 0,
      cpuSeconds: 0,
      latenciesUs: [],
      note: engine.status,
    });
    watch(() => {
      const d = disk as { inlineOperations?: number; slowOperations?: number };
      const note =
        `${engine.status}; inline ${d.inlineOperations ?? 0}, slow ${d.slowOperations ?? "all"}; ` +
        `turns ${loop.turns}`;
      tell({
        kind: "done",
        port: 0,
        operations: counter.operations,
        cpuSeconds: cpuSeconds() - before,
        latenciesUs: [],
        note,
      });
      void disk.close().then(() => loop.stop());
    });
  } else {
    const size = Deno.statSync(job.path).size;
    for (let i = 0; i < job.connections; i++) {
      const client = new Client(loop, job, Math.floor(size / job.bytes), counter);
      await network.connect({ hostname: "127.0.0.1", port: job.port }, 1000, (stream) => {
        client.stream = stream;
        return client;
      });
      client.start();
    }
    const before = cpuSeconds();
    watch(() => {
      tell({
        kind: "done",
        port: 0,
        operations: counter.operations,
        cpuSeconds: cpuSeconds() - before,
        latenciesUs: counter.latencies,
        note: "",
      });
      loop.stop();
    });
  }
  await running;
  scope.close();
};
