// The sending side of one TCP connection as something that can be lent: to another machine, which goes on where this one
// has stopped and gives back where it has stopped. The receiving side never leaves. docs/short-cut.md.

import type { DetachedStream, SocketAddress, Stream, StreamHandler } from "./network.ts";

/** What the borrower must know to send the next byte, and the lender to send the one after its last. */
export interface TcpState {
  readonly client: SocketAddress;
  /** The lender's own end. */
  readonly portal: SocketAddress;
  /** SND.UNA and SND.NXT (RFC 9293 §3.3.1): what lies between them is in `unacknowledged`. */
  readonly sendUnacknowledged: number;
  readonly sendNext: number;
  readonly receiveNext: number;
  /** Largest segment, options not counted, bytes. */
  readonly segmentBytes: number;
  /** Options of the handshake (RFC 7323, RFC 2018); a shift of -1: no window scaling. */
  readonly sendWindowShift: number;
  readonly receiveWindowShift: number;
  readonly timestamps: boolean;
  readonly selectiveAcknowledgements: boolean;
  /** The clock of this connection's timestamps. */
  readonly timestamp: number;
  /** Bytes, and where they were told: SND.WL1, the largest send window yet, and RCV.NXT of the last window told. */
  readonly sendWindow: number;
  readonly sendWindowMax: number;
  readonly sendWindowSequence: number;
  readonly receiveWindow: number;
  readonly receiveWindowSequence: number;
  readonly unacknowledged: Uint8Array;
}

/** Enough to make the client of a connection speak. */
export type FlowPoint = Pick<TcpState, "client" | "portal" | "sendUnacknowledged" | "receiveNext">;

/** By which another thread of the process steers the packets of connections that it lends. */
export interface SharedRules {
  /** Of the process's rules of the packet filter: their name. */
  readonly mark: number;
  /** Of the socket that can change them; whose it is given to closes it. */
  readonly descriptor: number;
}

/** How a connection was lent. */
export type LendResult =
  | { readonly kind: "lent"; readonly state: TcpState }
  /** It cannot be, now or ever: why. The connection goes on as before. */
  | { readonly kind: "refused"; readonly reason: string };

/** A stream whose sending side can be lent. From "lent" until takeBack() what is sent waits in the stream's queue. */
export interface LendableFlow {
  /** Whoever has the address gets the client's acknowledgements from then on. Waits until all that was sent has left. */
  lend(borrower: string, done: (result: LendResult) => void): void;
  /** Goes on behind what the borrower has sent. False: `state` does not follow from what was lent; only abort() is left. */
  takeBack(state: TcpState): boolean;
}

/** A borrowed sending side. */
export interface BorrowedFlow {
  /** Sends the bytes and then gives back: told once, null when the connection or the time is over. */
  send(bytes: readonly Uint8Array[], done: (state: TcpState | null) => void): void;
  /** Ends it where it is, and the client's connection with it. `done` is not called any more. */
  abort(): void;
}

/** What the borrower's machine must be able to do. */
export interface FlowBorrower {
  /** Whether packets can be steered to this address: it is a neighbour. */
  reaches(address: string): boolean;
  /** For so long at most, milliseconds. A string says why not. */
  borrow(state: TcpState, timeMs: number): BorrowedFlow | string;
}

/** One PDU of an answer: its header as it is sent, digest included; so many bytes of the data; padding, and perhaps a digest. */
export interface AnswerFrame {
  readonly header: Uint8Array;
  readonly dataBytes: number;
}

/** An answer without its data. */
export interface FramedAnswer {
  readonly frames: readonly AnswerFrame[];
  readonly dataDigest: boolean;
}

export type RemoteAnswerOutcome =
  /** The client gets all of it, and the connection goes on from `state`. */
  | { readonly kind: "sent"; readonly state: TcpState }
  /** No byte of it was sent, nor will be. */
  | { readonly kind: "unsent"; readonly reason: string }
  /** Nobody knows what the client has got of it. */
  | { readonly kind: "unknown"; readonly reason: string };

/** A stream whose connection can become another machine's for good. */
export interface MovableFlow {
  /**
   * Waits until all that was sent has left; from "lent" on the client's packets go to `owner` (an IPv4 address), nothing is
   * sent, and everything that had come has been delivered.
   */
  depart(owner: string, done: (result: LendResult) => void): void;
  /** It goes on here after all. False: only abort() is left. */
  stay(): boolean;
  /** It is another machine's: ends here, and neither client nor handler is told. */
  gone(): void;
}

/** Whose streams can be lent and moved: it makes one of a connection that another thread of the process has given back. */
export interface FlowHome {
  attach(stream: DetachedStream, handler: (stream: Stream) => StreamHandler): void;
}

/** A connection that is another machine's: its ends, and that machine's IPv4 address. */
export interface KeptFlow {
  readonly client: SocketAddress;
  readonly portal: SocketAddress;
  readonly owner: string;
}

/** What a machine must be able to do to take over whole connections, and to pass on the packets of those it has given away. */
export interface FlowTaker {
  reaches(address: string): boolean;
  /** Goes on from `state` with a stream of this machine. A string says why not, and nothing has happened. */
  take(state: TcpState, handler: (stream: Stream) => StreamHandler): string | null;
  /** The client's packets go to `owner`, an IPv4 address; null: to this machine's own socket, if there is one. */
  steer(client: SocketAddress, portal: SocketAddress, owner: string | null): void;
  /** Makes the client speak: whoever has the connection hears it, and where nobody has, it is reset. */
  provoke(state: FlowPoint): void;
  /**
   * The packets of these connections, and of no others, are steered for `timeMs` from now on even when this process is gone.
   * `name`: by which the next process knows them. Throws, and then nothing is kept.
   */
  keep(name: string, flows: readonly KeptFlow[], timeMs: number): void;
  /** What was kept by this name, by whichever process, is not any more. Throws when that cannot be done. */
  keepNoMore(name: string): void;
}

/** Another machine that has the data of an answer and can send it on a lent connection. */
export interface RemoteAnswerer {
  /** Its address, for LendableFlow.lend. */
  readonly borrower: string;
  /** `done` is called once. */
  send(state: TcpState, answer: FramedAnswer, done: (outcome: RemoteAnswerOutcome) => void): void;
}
