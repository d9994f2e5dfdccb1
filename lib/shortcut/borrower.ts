// The borrower's end of short cuts: reads what it is asked for, sends it on the lent connection, and gives that back.

import type { Clock } from "../base/clock.ts";
import type { FlowBorrower, FramedAnswer, TcpState } from "../base/flow.ts";
import { BufferPool, type PoolBuffer } from "../base/buffer_pool.ts";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import { BlockOperation } from "../extent/operation.ts";
import type { HomeRoutes, MessageAnswer, Messenger } from "../forward/mod.ts";
import { crc32c, setDigest } from "../wire/crc32c.ts";
import { MessageKind, MessageRefusal } from "../wire/scsi/member_message.ts";
import { decodeLend, encodeGiveBack, type LendMessage } from "../wire/scsi/short_cut.ts";

export interface BorrowerParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly messenger: Pick<Messenger, "send">;
  readonly flows: FlowBorrower;
  readonly routes: Pick<HomeRoutes, "table" | "isLocal" | "submitTo">;
  readonly pageBytes: number;
  /** Of what is read and sent. */
  readonly pool: BufferPool;
  /** False: the member must not serve its pages now (its lease has run out). */
  readonly mayServe: () => boolean;
}

export class Borrower {
  readonly #parts: BorrowerParts;
  readonly #pool: BufferPool;

  constructor(parts: BorrowerParts) {
    this.#parts = parts;
    this.#pool = parts.pool;
  }

  /** A message "lend" of `from`. Refused: nothing is sent. */
  readonly lent = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeLend(body);
    if (message === null) return answer({ reason: MessageRefusal.malformed });
    const { page, offsetBytes, lengthBytes, image } = message.extent;
    const { routes, pageBytes, mayServe } = this.#parts;
    const table = routes.table(image);
    const here = table !== null && page < table.pages && routes.isLocal(table.homeOf(page)) &&
      offsetBytes + lengthBytes <= pageBytes && mayServe();
    const buffer = here ? this.#pool.take(lengthBytes) : null;
    if (buffer === null) return answer({ reason: MessageRefusal.notNow });
    answer(null);
    // The time that the lender waits begins about now.
    const untilMs = this.#parts.clock.nowMs() + limits.shortCutSendMs;
    this.#read(message, table!.homeOf(page), buffer, (read) => {
      const leftMs = untilMs - this.#parts.clock.nowMs();
      if (read && leftMs > 0) return this.#send(from, message, buffer, leftMs);
      this.#pool.give(buffer);
      this.#unsent(from, message, read ? "its page was read too late" : "its page could not be read");
    });
  };

  #read(message: LendMessage, placement: number, buffer: PoolBuffer, done: (read: boolean) => void): void {
    const operation = new BlockOperation();
    const { image, page, offsetBytes, lengthBytes, blockBytes } = message.extent;
    operation.image = image;
    operation.page = page;
    operation.offsetBytes = offsetBytes;
    operation.lengthBytes = lengthBytes;
    operation.blockBytes = blockBytes;
    operation.buffer = buffer.bytes;
    operation.done = () => done(operation.outcome === "done");
    this.#parts.routes.submitTo(placement, operation, 1);
  }

  #send(from: string, message: LendMessage, buffer: PoolBuffer, timeMs: number): void {
    const flow = this.#parts.flows.borrow(message.state, timeMs);
    if (typeof flow === "string") {
      this.#pool.give(buffer);
      return this.#unsent(from, message, flow);
    }
    flow.send(assemble(message.answer, buffer.bytes), (state) => {
      this.#pool.give(buffer);
      if (state === null) {
        // The client's connection is reset. Its lender finds out with it, or when its time is over.
        return this.#parts.log.debug("a lent connection was lost", { from });
      }
      this.#giveBack(from, message.number, true, state);
    });
  }

  #unsent(from: string, message: LendMessage, reason: string): void {
    this.#parts.log.debug("a lent connection is given back unused", { from, reason });
    this.#giveBack(from, message.number, false, { ...message.state, unacknowledged: nothing });
  }

  #giveBack(from: string, number: number, sent: boolean, state: TcpState): void {
    const body = encodeGiveBack({ number, sent, state });
    this.#parts.messenger.send(from, MessageKind.giveBack, body, limits.shortCutMessageMs, (outcome) => {
      if (outcome.kind === "taken") return;
      this.#parts.log.debug("a lent connection could not be given back", { from, outcome: outcome.kind });
    });
  }
}

/** The PDUs of an answer, in pieces that are sent one behind the other. */
export function assemble({ frames, dataDigest }: FramedAnswer, data: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const { header, dataBytes } of frames) {
    pieces.push(header, data.subarray(at, at + dataBytes));
    const padding = -dataBytes & 3;
    const trailer = new Uint8Array(padding + (dataDigest ? 4 : 0));
    if (dataDigest) {
      const crc = crc32c(crc32c(0, data, at, at + dataBytes), trailer, 0, padding);
      setDigest(new DataView(trailer.buffer), padding, crc);
    }
    if (trailer.length > 0) pieces.push(trailer);
    at += dataBytes;
  }
  return pieces;
}

const nothing = new Uint8Array(0);
