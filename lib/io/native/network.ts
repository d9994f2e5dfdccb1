// TCP by the native engine: lib/base/network.ts over epoll. Everything happens in turns of the loop it was made with.

import type {
  DetachedStream,
  Listener,
  Network,
  SocketAddress,
  Stream,
  StreamHandler,
} from "../../base/network.ts";
import { formatSocketAddress } from "../../base/network.ts";
import { Errno, errnoText } from "./errno.ts";
import type { FlowLender } from "./flow_lender.ts";
import type { FlowTools } from "./flow_tools.ts";
import type { Libc } from "./libc.ts";
import type { EventSource, NativeLoop, Watch } from "./loop.ts";
import { epollIn, epollOut } from "./loop.ts";
import { rawAddress, socketAddress } from "./socket_address.ts";
import { NativeStream, StreamWorkspace } from "./stream.ts";

const socketStream = 1;
const nonBlocking = 0x800;
const closeOnExec = 0x80000;
const solSocket = 1;
const soReuseAddress = 2;
const soError = 4;
const ipprotoTcp = 6;
const tcpNoDelay = 1;
const one = new Int32Array([1]);
/** Connections that the kernel keeps until they are accepted; the same number as net.core.somaxconn on old kernels. */
const backlog = 128;
/** Accepted in one turn before other descriptors are looked at. */
const acceptsPerTurn = 16;
/** Without descriptors or memory, how long to leave new connections where they are, milliseconds. */
const acceptPauseMs = 50;

export class NativeNetwork implements Network {
  readonly #loop: NativeLoop;
  readonly #space: StreamWorkspace;

  constructor(loop: NativeLoop) {
    this.#loop = loop;
    this.#space = new StreamWorkspace(loop);
  }

  /** Connections can be lent from now on. */
  lendWith(lender: FlowLender): void {
    this.#space.lender = lender;
  }

  /** And moved. */
  moveWith(tools: FlowTools): void {
    this.lendWith(tools.lender);
    this.#space.moving = tools.rules;
    tools.adopt = (detached, handler) => this.adopt(detached, handler);
  }

  // deno-lint-ignore require-await
  async listen(address: SocketAddress, accept: (stream: Stream) => StreamHandler | null): Promise<Listener> {
    const c = this.#loop.libc;
    const fail = (why: string) => new Error(`Cannot listen on ${formatSocketAddress(address)}: ${why}.`);
    const fd = this.#socket(address, (fd, bytes) => {
      c.setsockopt(fd, solSocket, soReuseAddress, one, 4);
      return c.bind(fd, bytes, bytes.length) === 0 && c.listen(fd, backlog) === 0;
    }, fail);
    return new NativeListener(this.#loop, this.#space, fd, accept);
  }

  async connect(
    address: SocketAddress,
    timeoutMs: number,
    handler: (stream: Stream) => StreamHandler,
  ): Promise<Stream> {
    const c = this.#loop.libc;
    const fail = (why: string) => new Error(`Cannot connect to ${formatSocketAddress(address)}: ${why}.`);
    const fd = this.#socket(
      address,
      (fd, bytes) => c.connect(fd, bytes, bytes.length) === 0 || c.errno() === Errno.EINPROGRESS,
      fail,
    );
    const why = await this.#connected(fd, timeoutMs);
    if (why !== "") {
      c.close(fd);
      throw fail(why);
    }
    c.setsockopt(fd, ipprotoTcp, tcpNoDelay, one, 4);
    const stream = new NativeStream(this.#space, fd, socketAddress(c, fd, "local"), address);
    stream.start(handler(stream));
    return stream;
  }

  /** Goes on with a connection that another thread has given away; the descriptor is this one's now. */
  adopt(detached: DetachedStream, handler: (stream: Stream) => StreamHandler): void {
    const { descriptor, local, remote } = detached;
    const stream = new NativeStream(this.#space, descriptor, local, remote);
    stream.start(handler(stream));
  }

  /** A new socket on which `use` has worked; throws what `fail` makes of the reason otherwise. */
  #socket(
    address: SocketAddress,
    use: (fd: number, bytes: Uint8Array<ArrayBuffer>) => boolean,
    fail: (why: string) => Error,
  ): number {
    const c = this.#loop.libc;
    let raw;
    try {
      raw = rawAddress(c, address);
    } catch (error) {
      throw fail((error as Error).message);
    }
    const fd = c.socket(raw.family, socketStream | nonBlocking | closeOnExec, 0);
    if (fd < 0) throw fail(errnoText(c.errno()));
    if (use(fd, raw.bytes)) return fd;
    const errno = c.errno();
    c.close(fd);
    throw fail(errnoText(errno));
  }

  /** Resolves with why there is no connection; "" when there is one. */
  #connected(fd: number, timeoutMs: number): Promise<string> {
    const loop = this.#loop;
    return new Promise((resolve) => {
      const finish = (why: string) => {
        watch.remove();
        timer.cancel();
        loop.expectPromises();
        resolve(why);
      };
      const watch = loop.watch(fd, epollOut, { ready: () => finish(pendingError(loop.libc, fd)) });
      const timer = loop.after(timeoutMs, () => finish(`no answer within ${timeoutMs} ms`));
    });
  }
}

function pendingError(c: Libc, fd: number): string {
  const errno = new Int32Array(1);
  c.getsockopt(fd, solSocket, soError, errno, new Uint32Array([4]));
  return errno[0] === 0 ? "" : errnoText(errno[0]!);
}

class NativeListener implements Listener, EventSource {
  readonly address: SocketAddress;
  readonly #watch: Watch;
  #closed = false;

  constructor(
    readonly loop: NativeLoop,
    readonly space: StreamWorkspace,
    readonly fd: number,
    readonly accept: (stream: Stream) => StreamHandler | null,
  ) {
    this.address = socketAddress(loop.libc, fd, "local");
    this.#watch = loop.watch(fd, epollIn, this);
  }

  // deno-lint-ignore require-await
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch.remove();
    this.loop.libc.close(this.fd);
  }

  ready(): void {
    const c = this.loop.libc;
    for (let i = 0; i < acceptsPerTurn && !this.#closed; i++) {
      const fd = c.accept4(this.fd, null, null, nonBlocking | closeOnExec);
      if (fd < 0) return this.#noneAccepted(c.errno());
      c.setsockopt(fd, ipprotoTcp, tcpNoDelay, one, 4);
      const stream = new NativeStream(
        this.space,
        fd,
        socketAddress(c, fd, "local"),
        socketAddress(c, fd, "remote"),
      );
      const handler = this.accept(stream);
      if (handler === null) stream.refuse();
      else stream.start(handler);
    }
  }

  #noneAccepted(errno: number): void {
    switch (errno) {
      case Errno.EMFILE:
      case Errno.ENFILE:
      case Errno.ENOBUFS:
      case Errno.ENOMEM:
        // The connection stays in the backlog, and the descriptor ready: without a pause the loop would spin.
        this.#watch.modify(0);
        this.loop.after(acceptPauseMs, () => {
          if (!this.#closed) this.#watch.modify(epollIn);
        });
    }
    // Anything else (EAGAIN, EINTR, a peer that went away before it was accepted) means: look again when told.
  }
}
