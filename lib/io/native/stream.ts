// One TCP connection of the native engine. What handlers queue in a turn leaves in one sendmsg, straight from where it
// lies; what arrives is handed on from one buffer that all connections share.

import { assert } from "../../base/assert.ts";
import type { Timer } from "../../base/clock.ts";
import type { LendableFlow, LendResult, MovableFlow, TcpState } from "../../base/flow.ts";
import type { LentRange } from "../../base/lent_range.ts";
import type {
  DetachedStream,
  SendRelease,
  SocketAddress,
  Stream,
  StreamHandler,
} from "../../base/network.ts";
import { Errno, errnoText } from "./errno.ts";
import type { FlowLender } from "./flow_lender.ts";
import type { FlowRules } from "./flow_rules.ts";
import type { GivenFlow } from "./all_sent.ts";
import { LentSide } from "./lent_side.ts";
import { MovedSide } from "./moved_side.ts";
import { addressOf, setLong, Words } from "./libc.ts";
import type { EventSource, LoopTask, NativeLoop, Watch } from "./loop.ts";
import { epollIn, epollOut } from "./loop.ts";
import { SendQueue } from "./send_queue.ts";

const receiveBytes = 256 * 1024;
/**
 * Beside others, what a connection receives in a turn is bounded by the time its handler takes, milliseconds; by less
 * where one of the others has a command or a few at a time and waits for every turn …
 */
const receiveMs = 0.1;
const receiveBesideShallowMs = 0.05;
/** Turns for which a shallow connection is remembered. */
const shallowTurns = 64;
/** … but never below so many bytes: ten commands. Fewer are not measured. */
const receiveBytesMin = 512;
/** What the kernel takes in one call (UIO_MAXIOV). */
const iovecsMax = 1024;
/** Bytes of one sendmsg, and of one connection before others get their turn: some 100 us. */
const sendBytes = 512 * 1024;
/** After the last byte sent, how long to wait for the peer's own end before closing, milliseconds. */
const lingerMs = 2_000;

const messageDontWait = 0x40;
const messageNoSignal = 0x4000;
const shutdownWrite = 1;
const solSocket = 1;
const soLinger = 13;
const lingerReset = new Int32Array([1, 0]);

/** Buffers that all streams of a loop use in turn: no stream keeps anything in them. */
export class StreamWorkspace {
  readonly received = new Uint8Array(receiveBytes);
  readonly view = new DataView(this.received.buffer);
  /** struct iovec that names `received`. */
  readonly receiveVector = new Words(4);
  readonly sendVectors = new Words(4 * iovecsMax);
  /** struct msghdr: name, namelen, iov, iovlen, control, controllen, flags; 56 bytes. */
  readonly message = new Words(14);
  /** Until this turn of the loop, a shallow connection is taken to be beside deep ones. */
  shallowUntil = 0;
  /** Set where connections can be lent, and where they can be moved too. */
  lender: FlowLender | null = null;
  moving: FlowRules | null = null;

  constructor(readonly loop: NativeLoop) {
    setLong(this.receiveVector.words, 0, addressOf(this.received));
    setLong(this.message.words, 4, this.sendVectors.address);
  }

  receiveAtMost(bytes: number): void {
    setLong(this.receiveVector.words, 2, bytes);
  }

  sendVectorsUsed(count: number): void {
    setLong(this.message.words, 6, count);
  }
}

export class NativeStream implements Stream, LendableFlow, MovableFlow, EventSource, LoopTask {
  queued = false;
  readonly #space: StreamWorkspace;
  readonly #loop: NativeLoop;
  readonly #fd: number;
  readonly #queue = new SendQueue();
  #watch: Watch | null = null;
  #handler: StreamHandler | null = null;
  #receiveBytes = receiveBytes;
  /** What was received last was little. */
  #little = false;
  #waitsForRoom = false;
  #ending = false;
  #shut = false;
  #dead = false;
  #told = false;
  #reason = "";
  #lingerTimer: Timer | null = null;
  #lentSide: LentSide | null = null;
  #movedSide: MovedSide | null = null;
  #ownAddress: boolean | null = null;
  /** The sending side is lent: nothing leaves. */
  #held = false;

  constructor(
    space: StreamWorkspace,
    fd: number,
    readonly local: SocketAddress,
    readonly remote: SocketAddress,
  ) {
    this.#space = space;
    this.#loop = space.loop;
    this.#fd = fd;
  }

  get pendingBytes(): number {
    return this.#queue.bytes;
  }

  /** Begins to deliver. */
  start(handler: StreamHandler): void {
    this.#handler = handler;
    if (this.#dead) return this.#loop.soon(this);
    this.#watch = this.#loop.watch(this.#fd, epollIn, this);
  }

  /** Closes a stream that nobody wants; nobody is told. */
  refuse(): void {
    this.#told = true;
    this.#die("refused", false);
  }

  send(buffer: Uint8Array, start: number, length: number, release: SendRelease | null): void {
    if (this.#dead || this.#ending) {
      release?.released();
      return;
    }
    this.#queue.push(buffer, start, length, release);
    if (!this.#waitsForRoom) this.#loop.soon(this);
  }

  sendLent(range: LentRange, start: number, length: number, release: SendRelease | null): void {
    if (this.#dead || this.#ending) {
      release?.released();
      return;
    }
    this.#queue.pushAddress(range.address + start, length, release);
    if (!this.#waitsForRoom) this.#loop.soon(this);
  }

  end(): void {
    if (this.#dead || this.#ending) return;
    this.#ending = true;
    if (!this.#waitsForRoom) this.#loop.soon(this);
  }

  abort(): void {
    if (!this.#dead) this.#die(this.#ending ? "ended" : "aborted", true);
  }

  /** Where connections can be lent: not with an address of another machine, whose packets come from that one. */
  get flow(): LendableFlow | null {
    const { lender } = this.#space;
    if (lender === null) return null;
    this.#ownAddress ??= lender.owns(this.local.hostname);
    return this.#ownAddress ? this : null;
  }

  get movable(): MovableFlow | null {
    return this.#space.moving === null ? null : this;
  }

  lend(borrower: string, done: (result: LendResult) => void): void {
    const { lender } = this.#space;
    if (this.#dead || this.#ending || lender === null) {
      return done({ kind: "refused", reason: "the connection is closing" });
    }
    this.#lentSide ??= new LentSide(this.#given(lender));
    this.#lentSide.lend(borrower, done);
  }

  depart(owner: string, done: (result: LendResult) => void): void {
    const { lender, moving: rules } = this.#space;
    if (this.#dead || this.#ending || this.#held || lender === null || rules === null) {
      return done({ kind: "refused", reason: "the connection is closing, or lent" });
    }
    this.#movedSide ??= new MovedSide({
      ...this.#given(lender),
      rules,
      deliver: () => this.#deliverAll(),
    });
    this.#movedSide.depart(owner, done);
  }

  stay(): boolean {
    return !this.#dead && this.#movedSide!.stay();
  }

  gone(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#told = true;
    this.#watch?.remove();
    this.#movedSide!.gone();
    this.#queue.drop();
  }

  #given(lender: FlowLender): GivenFlow {
    return {
      loop: this.#loop,
      lender,
      fd: this.#fd,
      portal: this.local,
      client: this.remote,
      hold: (held) => this.#hold(held),
      fail: (reason) => {
        if (!this.#dead) this.#die(reason, true);
      },
    };
  }

  /** Bytes delivered until there are no more; -1: the stream has died. */
  #deliverAll(): number {
    let bytes = 0;
    while (!this.#dead) {
      const space = this.#space;
      space.receiveAtMost(receiveBytes);
      const count = this.#loop.libc.readv(this.#fd, space.receiveVector.pointer, 1);
      if (count < 0 && this.#loop.libc.errno() === Errno.EAGAIN) return bytes;
      if (count <= 0) {
        this.#receiveEnded(count);
        continue;
      }
      bytes += count;
      this.#handler!.received(space.received, space.view, 0, count);
    }
    return -1;
  }

  takeBack(state: TcpState): boolean {
    if (this.#dead || !this.#held || !this.#lentSide!.takeBack(state)) return false;
    this.#held = false;
    this.#loop.soon(this);
    return true;
  }

  #hold(held: boolean): boolean {
    this.#held = held && this.#queue.empty;
    if (!held && !this.#dead) this.#loop.soon(this);
    return this.#held;
  }

  detach(): DetachedStream | null {
    if (this.#held || this.#dead || this.#ending || this.#watch === null || !this.#queue.empty) return null;
    this.#dead = true;
    this.#told = true;
    this.#watch.remove();
    return { descriptor: this.#fd, local: this.local, remote: this.remote };
  }

  /** LoopTask: the handlers of this turn have queued what they had, or the stream has died. */
  runTask(): void {
    if (!this.#dead) this.#flush();
    if (this.#dead) this.#tellClosed();
  }

  ready(events: number): void {
    if (this.#dead) return;
    if ((events & epollOut) !== 0 && this.#waitsForRoom) {
      this.#waitsForRoom = false;
      this.#watch!.modify(epollIn);
      this.#flush();
    }
    if ((events & ~epollOut) !== 0 && !this.#dead) this.#receive();
  }

  #receive(): void {
    const space = this.#space;
    space.receiveAtMost(this.#loop.contended ? this.#receiveBytes : receiveBytes);
    const count = this.#loop.libc.readv(this.#fd, space.receiveVector.pointer, 1);
    if (count > 0) {
      if (this.#ending) return;
      if (count < receiveBytesMin) this.#receiveLittle(count);
      else this.#receiveMeasured(count);
      return;
    }
    this.#receiveEnded(count);
  }

  #receiveEnded(count: number): void {
    if (count === 0) return this.#die("closed by peer", false);
    const errno = this.#loop.libc.errno();
    if (errno !== Errno.EAGAIN && errno !== Errno.EINTR) this.#die(errnoText(errno), false);
  }

  /** Little once may be the rest of a deep queue; twice in a row it is a shallow one. */
  #receiveLittle(count: number): void {
    const space = this.#space;
    if (this.#little) space.shallowUntil = this.#loop.turns + shallowTurns;
    this.#little = true;
    this.#handler!.received(space.received, space.view, 0, count);
  }

  /** Fair service: a deep queue of commands must not keep a shallow one on another connection waiting. */
  #receiveMeasured(count: number): void {
    const space = this.#space;
    this.#little = false;
    const before = this.#loop.nowMs();
    this.#handler!.received(space.received, space.view, 0, count);
    if (!this.#dead) this.#flush();
    const tookMs = this.#loop.nowMs() - before;
    const mostMs = this.#loop.turns < space.shallowUntil ? receiveBesideShallowMs : receiveMs;
    if (tookMs > mostMs) {
      this.#receiveBytes = Math.max(receiveBytesMin, Math.min(this.#receiveBytes, count) >> 1);
    } else if (tookMs < mostMs / 2 && count >= this.#receiveBytes) {
      this.#receiveBytes = Math.min(receiveBytes, count * 2);
    }
  }

  /** Sends until the queue is empty, the kernel has no room, or others should have their turn. */
  #flush(): void {
    if (this.#waitsForRoom || this.#held) return;
    const queue = this.#queue;
    let budget = sendBytes;
    while (!queue.empty) {
      if (budget <= 0) return this.#loop.nextTurn(this);
      const sent = this.#sendSome();
      if (sent < 0) return;
      budget -= sent;
      const partial = sent < queue.gatheredBytes;
      queue.sent(sent);
      if (this.#dead) return;
      if (partial) return this.#waitForRoom();
      if (queue.empty && !this.#ending) {
        this.#handler?.drained();
        if (this.#dead) return;
      }
    }
    if (this.#ending && !this.#shut) this.#linger();
  }

  /** Bytes that one call has sent; -1 when the flush is over for now. */
  #sendSome(): number {
    const space = this.#space;
    const count = this.#queue.gather(space.sendVectors.words, iovecsMax, sendBytes);
    if (count === 0) return 0;
    space.sendVectorsUsed(count);
    const sent = this.#loop.libc.sendmsg(this.#fd, space.message.pointer, messageDontWait | messageNoSignal);
    if (sent >= 0) return sent;
    const errno = this.#loop.libc.errno();
    if (errno === Errno.EAGAIN) this.#waitForRoom();
    else if (errno === Errno.EINTR || errno === Errno.ENOBUFS || errno === Errno.ENOMEM) {
      this.#loop.nextTurn(this);
    } else this.#die(errnoText(errno), false);
    return -1;
  }

  #waitForRoom(): void {
    this.#waitsForRoom = true;
    this.#watch?.modify(epollIn | epollOut);
  }

  /** Closes our direction and waits for the peer's end: closing at once could reset what it has not read yet. */
  #linger(): void {
    this.#shut = true;
    if (this.#loop.libc.shutdown(this.#fd, shutdownWrite) < 0) return this.#die("ended", false);
    this.#lingerTimer = this.#loop.after(lingerMs, () => this.#die("ended", false));
  }

  #die(reason: string, reset: boolean): void {
    assert(!this.#dead, "a stream died twice");
    this.#dead = true;
    this.#reason = this.#ending ? "ended" : reason;
    this.#lingerTimer?.cancel();
    this.#watch?.remove();
    const { libc } = this.#loop;
    const close = () => {
      if (reset) libc.setsockopt(this.#fd, solSocket, soLinger, lingerReset, 8);
      libc.close(this.#fd);
    };
    if (this.#lentSide !== null) this.#lentSide.die(() => this.#endMove(close));
    else this.#endMove(close);
    this.#queue.drop();
    this.#loop.soon(this); // who called may be in the middle of something
  }

  #endMove(close: () => void): void {
    if (this.#movedSide === null) close();
    else this.#movedSide.die(close);
  }

  #tellClosed(): void {
    if (this.#told || this.#handler === null) return;
    this.#told = true;
    this.#handler.closed(this.#reason);
  }
}
