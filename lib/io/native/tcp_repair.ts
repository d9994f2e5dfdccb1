// The state of a TCP connection, out of a socket and into one: TCP_REPAIR (tcp(7) does not have it; see CRIU's libsoccr and
// net/ipv4/tcp.c). Needs CAP_NET_ADMIN.

import type { TcpState } from "../../base/flow.ts";
import type { SocketAddress } from "../../base/network.ts";
import { checked, flowCalls, getNumber, getOption, setOption } from "./flow_calls.ts";
import { libc } from "./libc.ts";
import { rawAddress } from "./socket_address.ts";
import { SocketFilter } from "./socket_filter.ts";

const solSocket = 1;
const Socket = {
  reuseAddress: 2,
  linger: 13,
  sendBufferForce: 32,
  receiveBufferForce: 33,
  timestamping: 37,
  bufferLock: 72,
};
const ipprotoIp = 0;
const ipTransparent = 19;
const ipprotoTcp = 6;
const Tcp = {
  segment: 2,
  noDelay: 1,
  info: 11,
  congestion: 13,
  userTimeout: 18,
  repair: 19,
  repairQueue: 20,
  queueSequence: 21,
  repairOptions: 22,
  timestamp: 24,
  unsentLow: 25,
  repairWindow: 29,
};
const repairOn = 1;
const repairOffQuietly = -1; // TCP_REPAIR_OFF_NO_WP: no window probe
const Queue = { none: 0, receive: 1, send: 2 };
const outQueueBytes = 0x5411n; // SIOCOUTQ
const outQueueUnsentBytes = 0x894bn; // SIOCOUTQNSD
const peek = 0x2;
const errorQueue = 0x2000;
const receiptOfAcknowledgement = 0x200 | 0x800; // SOF_TIMESTAMPING_TX_ACK, without the data (OPT_TSONLY)
const dontWait = 0x40;
const noSignal = 0x4000;
const streamNonBlocking = 1 | 0x800 | 0x80000; // SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC
/** struct tcp_repair_opt's codes are those of the options (RFC 7323, RFC 2018). */
const Option = { segment: 2, windowShift: 3, selectiveAcknowledgements: 4, timestamps: 8 };
const infoTimestamps = 1;
const infoSelective = 2;
const infoWindowShift = 4;
/** The kernel returns whole segments, of which the first may begin below SND.UNA. */
const peekSlackBytes = 128 * 1024;
/** What a socket begins with anyway (net.ipv4.tcp_rmem). */
const receiveBytesMin = 128 * 1024;
const lingerReset = new Int32Array([1, 0]);
const lingerNot = new Int32Array([0, 0]);

const cubic = new TextEncoder().encode("cubic");
const info = new Uint8Array(new ArrayBuffer(256));
const window = new Uint32Array(new ArrayBuffer(20));
const sizeCell = new Uint32Array(new ArrayBuffer(4));
const zeroes = new Uint8Array(256 * 1024);

/** Bytes sent and not acknowledged, and of these and those behind them the ones that have not left yet. */
export function outstandingBytes(fd: number): number {
  return getNumber(fd, outQueueBytes, "Cannot read a socket's queue");
}

export function unsentBytes(fd: number): number {
  return getNumber(fd, outQueueUnsentBytes, "Cannot read a socket's queue");
}

/** From now on a socket has room (EPOLLOUT) when nothing of its queue is unsent. */
export function tellWhenSent(fd: number): void {
  set(fd, Tcp.unsentLow, 1);
}

/** From now on a socket has an error (EPOLLERR) in its queue when what is sent next is acknowledged. */
export function wantReceipt(fd: number): void {
  setOption(fd, solSocket, Socket.timestamping, receiptOfAcknowledgement, "Cannot ask for acknowledgements");
}

/** False: what the socket has is a real error. */
export function takeReceipt(fd: number): boolean {
  return flowCalls().recv(fd, nothing, 0n, errorQueue | dontWait) >= 0;
}

/** While it is lent, the end of the process is the end of the connection: nothing is sent on its behalf. */
export function resetAtClose(fd: number, reset: boolean): void {
  checked(
    libc()!.setsockopt(fd, solSocket, Socket.linger, reset ? lingerReset : lingerNot, 8),
    "Cannot set how a socket closes",
  );
}

/** The state of a connection of which nothing is unsent. The socket stays as it is. */
export function readState(fd: number, client: SocketAddress, portal: SocketAddress): TcpState {
  sizeCell[0] = info.length;
  checked(libc()!.getsockopt(fd, ipprotoTcp, Tcp.info, info, sizeCell), "Cannot read a connection's options");
  const options = info[5]!;
  const shifts = info[6]!;
  return repairing(fd, () => {
    const segmentBytes = get(fd, Tcp.segment);
    set(fd, Tcp.repairQueue, Queue.send);
    const sendNext = get(fd, Tcp.queueSequence) >>> 0;
    const unacknowledged = peekUnacknowledged(fd);
    const timestamps = (options & infoTimestamps) !== 0;
    const timestamp = timestamps ? get(fd, Tcp.timestamp) >>> 0 : 0;
    readWindow(fd);
    // Behind the window: the client goes on sending, and no window may begin behind what was received of it.
    set(fd, Tcp.repairQueue, Queue.receive);
    const receiveNext = get(fd, Tcp.queueSequence) >>> 0;
    const scaled = (options & infoWindowShift) !== 0;
    return {
      client,
      portal,
      sendUnacknowledged: (sendNext - unacknowledged.length) >>> 0,
      sendNext,
      receiveNext,
      segmentBytes,
      sendWindowShift: scaled ? shifts & 15 : -1,
      receiveWindowShift: scaled ? shifts >> 4 : -1,
      timestamps,
      selectiveAcknowledgements: (options & infoSelective) !== 0,
      timestamp,
      sendWindow: window[1]!,
      sendWindowMax: window[2]!,
      sendWindowSequence: window[0]!,
      receiveWindow: window[3]!,
      receiveWindowSequence: window[4]!,
      unacknowledged,
    };
  });
}

/** A socket that sends on from `state`, on the lender's address, and takes no data. Throws CallError. */
export function restoreSending(state: TcpState, userTimeoutMs: number): number {
  return restore(state, (fd) => {
    headersAlone.attach(fd);
    set(fd, Tcp.userTimeout, userTimeoutMs);
  });
}

/** A socket that goes on from `state` in both directions. When it dies with its process, the client is told (reset). */
export function restoreWhole(state: TcpState): number {
  const fd = restore(state, (fd) => {
    // The client may send at once what it was promised.
    const bytes = Math.max(state.receiveWindow, receiveBytesMin);
    setOption(fd, solSocket, Socket.receiveBufferForce, bytes, "Cannot enlarge a socket's buffer");
    libc()!.setsockopt(fd, solSocket, Socket.bufferLock, new Int32Array([0]), 4);
  });
  // Listeners at the same address can be bound while it exists.
  setOption(fd, solSocket, Socket.reuseAddress, 1, "Cannot set a socket's option");
  return fd;
}

function restore(state: TcpState, prepare: (fd: number) => void): number {
  const c = libc()!;
  const fd = checked(c.socket(2, streamNonBlocking, 0), "Cannot make a socket");
  try {
    set(fd, Tcp.repair, repairOn);
    setOption(fd, ipprotoIp, ipTransparent, 1, "Cannot use an address of another machine");
    prepare(fd);
    set(fd, Tcp.noDelay, 1);
    resetAtClose(fd, true);
    c.setsockopt(fd, ipprotoTcp, Tcp.congestion, cubic, cubic.length);
    set(fd, Tcp.repairQueue, Queue.send);
    set(fd, Tcp.queueSequence, state.sendUnacknowledged | 0);
    set(fd, Tcp.repairQueue, Queue.receive);
    set(fd, Tcp.queueSequence, state.receiveNext | 0);
    // Before connect(): later the kernel keeps its default of 536 bytes for the segments that it cuts.
    set(fd, Tcp.segment, state.segmentBytes);
    const portal = rawAddress(c, state.portal).bytes;
    const client = rawAddress(c, state.client).bytes;
    checked(c.bind(fd, portal, portal.length), "Cannot bind to the lender's address");
    checked(c.connect(fd, client, client.length), "Cannot take over a connection");
    setOptions(fd, state);
    // The lender's clock goes on meanwhile: a borrower that runs behind it is never taken for old news (PAWS). From Linux 6.7 on, an
    // odd number is no time but asks for a clock of microseconds, which would run away from it; older kernels tell odd ones.
    if (state.timestamps) set(fd, Tcp.timestamp, state.timestamp & ~1);
    if (state.unacknowledged.length > 0) {
      set(fd, Tcp.repairQueue, Queue.send);
      fill(fd, state.unacknowledged, state.unacknowledged.length);
    }
    set(fd, Tcp.repairQueue, Queue.none);
    window[0] = state.sendWindowSequence;
    window[1] = state.sendWindow;
    window[2] = state.sendWindowMax;
    window[3] = state.receiveWindow;
    window[4] = state.receiveWindowSequence;
    checked(
      c.setsockopt(fd, ipprotoTcp, Tcp.repairWindow, new Uint8Array(window.buffer), 20),
      "Cannot set a connection's window",
    );
    set(fd, Tcp.repair, repairOffQuietly);
    return fd;
  } catch (error) {
    closeSilently(fd);
    throw error;
  }
}

/** The clock of a connection's timestamps. */
export function readTimestamp(fd: number): number {
  return repairing(fd, () => get(fd, Tcp.timestamp) >>> 0);
}

/** What a connection has received, and how many bytes it has promised to take beyond. */
export interface Reception {
  readonly receiveNext: number;
  readonly windowBytes: number;
}

/**
 * Sequence numbers up to `state.sendNext` have been used: those below `sendUnacknowledged` are acknowledged, the rest may
 * have to be sent again.
 */
export function advance(fd: number, from: number, state: TcpState): Reception {
  const acknowledged = (state.sendUnacknowledged - from) | 0;
  const done = Math.max(0, acknowledged);
  // What was sent before it was lent is in the socket still.
  const unacknowledged = state.unacknowledged.subarray(Math.max(0, -acknowledged));
  giveRoom(fd, done + unacknowledged.length);
  return repairing(fd, () => {
    set(fd, Tcp.repairQueue, Queue.receive);
    const receiveNext = get(fd, Tcp.queueSequence) >>> 0;
    set(fd, Tcp.repairQueue, Queue.send);
    fill(fd, null, done);
    fill(fd, unacknowledged, unacknowledged.length);
    set(fd, Tcp.repairQueue, Queue.none);
    readWindow(fd);
    return { receiveNext, windowBytes: Math.max(0, (window[4]! + window[3]! - receiveNext) | 0) };
  });
}

/** Throws where sockets cannot be put into repair mode. */
export function repairProblem(): void {
  const fd = checked(libc()!.socket(2, streamNonBlocking, 0), "Cannot make a socket");
  try {
    set(fd, Tcp.repair, repairOn);
  } finally {
    libc()!.close(fd);
  }
}

/** Closes, and nobody is told. */
export function closeSilently(fd: number): void {
  const c = libc()!;
  const on = new Int32Array([repairOn]);
  c.setsockopt(fd, ipprotoTcp, Tcp.repair, on, 4); // where that fails, it never was one
  c.close(fd);
}

function repairing<T>(fd: number, work: () => T): T {
  set(fd, Tcp.repair, repairOn);
  try {
    return work();
  } finally {
    set(fd, Tcp.repair, repairOffQuietly);
    // Leaving repair mode forgets it: without it a listener could not be bound again while this socket exists.
    setOption(fd, solSocket, Socket.reuseAddress, 1, "Cannot set a socket's option");
  }
}

/** struct tcp_repair_window into `window`: SND.WL1, send window, the largest one, receive window, where it was told. */
function readWindow(fd: number): void {
  sizeCell[0] = 20;
  checked(
    libc()!.getsockopt(fd, ipprotoTcp, Tcp.repairWindow, window, sizeCell),
    "Cannot read a connection's window",
  );
}

function peekUnacknowledged(fd: number): Uint8Array {
  const bytes = outstandingBytes(fd);
  if (bytes === 0) return nothing;
  const room = new Uint8Array(bytes + peekSlackBytes);
  const count = checked(
    flowCalls().recv(fd, room, BigInt(room.length), peek | dontWait),
    "Cannot read what is unacknowledged",
  );
  // Acknowledgements that came in between only make it less.
  const left = Math.min(count, outstandingBytes(fd));
  return room.slice(count - left, count);
}

function setOptions(fd: number, state: TcpState): void {
  const words: number[] = [];
  if (state.sendWindowShift >= 0) {
    words.push(Option.windowShift, state.sendWindowShift | (state.receiveWindowShift << 16));
  }
  if (state.selectiveAcknowledgements) words.push(Option.selectiveAcknowledgements, 0);
  if (state.timestamps) words.push(Option.timestamps, 0);
  words.push(Option.segment, state.segmentBytes);
  const bytes = new Uint8Array(new Uint32Array(words).buffer);
  checked(
    libc()!.setsockopt(fd, ipprotoTcp, Tcp.repairOptions, bytes, bytes.length),
    "Cannot set a connection's options",
  );
}

/** In repair mode: puts bytes into the queue as if they had been sent; null: any bytes. */
function fill(fd: number, bytes: Uint8Array | null, length: number): void {
  const from = bytes ?? zeroes;
  for (let at = 0; at < length;) {
    const part = bytes === null
      ? zeroes.subarray(0, Math.min(zeroes.length, length - at))
      : from.subarray(at);
    const sent = flowCalls().send(fd, part, BigInt(part.length), dontWait | noSignal);
    at += checked(sent, "Cannot fill a connection's queue");
  }
}

/** The kernel must take them all at once, which its own idea of the buffer may not allow. */
function giveRoom(fd: number, bytes: number): void {
  const forced = bytes + peekSlackBytes;
  if (getOption(fd, solSocket, 7, "Cannot read a buffer's size") >= 2 * forced) return;
  setOption(fd, solSocket, Socket.sendBufferForce, forced, "Cannot enlarge a socket's buffer");
  // And may go on to tune it by itself.
  libc()!.setsockopt(fd, solSocket, Socket.bufferLock, new Int32Array([0]), 4);
}

/**
 * Of what the client sends, only headers reach the borrower: it sees what is acknowledged and takes no data, for which
 * the lender alone answers. A filter of TCP may cut a segment down to its header (tcp_filter in net/ipv4/tcp_ipv4.c);
 * a segment with FIN is left out altogether.
 */
const headersAlone = new SocketFilter([
  [0x30, 0, 0, 13], // ldb [13]: flags
  [0x45, 4, 0, 0x01], // jset FIN
  [0x30, 0, 0, 12], // ldb [12]: data offset
  [0x54, 0, 0, 0xf0],
  [0x74, 0, 0, 2], // rsh 2: bytes
  [0x16, 0, 0, 0], // ret A
  [0x06, 0, 0, 0], // ret 0: drop
]);

function set(fd: number, option: number, value: number): void {
  setOption(fd, ipprotoTcp, option, value, `Cannot set TCP option ${option}`);
}

function get(fd: number, option: number): number {
  return getOption(fd, ipprotoTcp, option, `Cannot read TCP option ${option}`);
}

const nothing = new Uint8Array(0);
