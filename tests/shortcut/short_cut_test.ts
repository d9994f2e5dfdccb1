// Without this, messages that get lost, come twice or late could leave a connection with two owners, or with none.

import { strict as assert } from "node:assert";
import { BufferPool } from "../../lib/base/buffer_pool.ts";
import type { BorrowedFlow, RemoteAnswerOutcome, TcpState } from "../../lib/base/flow.ts";
import { limits } from "../../lib/base/limits.ts";
import { silentLog } from "../../lib/base/log.ts";
import type { BlockOperation } from "../../lib/extent/operation.ts";
import type { MessageAnswer, MessageOutcome } from "../../lib/forward/mod.ts";
import { RouteTable } from "../../lib/route/route_table.ts";
import { Borrower, Lender } from "../../lib/shortcut/mod.ts";
import { crc32c } from "../../lib/wire/crc32c.ts";
import { MessageKind } from "../../lib/wire/scsi/member_message.ts";
import { ManualClock } from "../roles/manual_clock.ts";
import { state } from "./tcp_state.ts";

const extent = { image: 1, page: 0, offsetBytes: 4096, lengthBytes: 1024, blockBytes: 512 };
const header = (n: number) => new Uint8Array(48).fill(n);
const answer = {
  frames: [{ header: header(1), dataBytes: 1000 }, { header: header(2), dataBytes: 22 }],
  dataDigest: true,
};

/** Two members; messages between them wait in `wire` until somebody delivers them. */
class Pair {
  readonly clock = new ManualClock();
  readonly wire: { kind: number; body: Uint8Array; told: (outcome: MessageOutcome) => void }[] = [];
  readonly lender: Lender;
  readonly borrower: Borrower;
  readonly outcomes: RemoteAnswerOutcome[] = [];
  sent: Uint8Array | null = null;
  home = true;
  unreachable = "";
  serves = true;
  borrowed: ((state: TcpState | null) => void) | null = null;
  borrowProblem = "";
  /** So long the disk takes; and what is left of the time then. */
  readMs = 0;
  timeMs = 0;

  constructor() {
    const messenger = {
      send: (
        _member: string,
        kind: number,
        body: Uint8Array,
        _timeMs: number,
        told: (outcome: MessageOutcome) => void,
      ) => void this.wire.push({ kind, body: body.slice(), told }),
    };
    const log = silentLog;
    this.lender = new Lender({
      clock: this.clock,
      log,
      messenger,
      worth: (lengthBytes) => lengthBytes >= 512,
      reaches: (address) => address !== this.unreachable,
      addressOf: (name) => name === "beta" ? "10.1.2.5" : null,
    });
    const table = new RouteTable(1, 1, Uint8Array.of(2));
    this.borrower = new Borrower({
      clock: this.clock,
      log,
      messenger,
      pageBytes: 1024 * 1024,
      pool: new BufferPool(1024 * 1024),
      mayServe: () => this.serves,
      routes: {
        table: () => table,
        isLocal: () => this.home,
        submitTo: (_placement: number, operation: BlockOperation) => {
          operation.buffer.fill(0x5a, 0, operation.lengthBytes);
          operation.outcome = "done";
          this.clock.advance(this.readMs);
          operation.done(operation);
        },
      },
      flows: {
        reaches: () => true,
        borrow: (_state, timeMs) => {
          this.timeMs = timeMs;
          if (this.borrowProblem !== "") return this.borrowProblem;
          const flow: BorrowedFlow = {
            send: (bytes, done) => {
              this.sent = Uint8Array.of(...bytes.flatMap((part) => [...part]));
              this.borrowed = done;
            },
            abort: () => {},
          };
          return flow;
        },
      },
    });
  }

  lend(lent: TcpState = state): void {
    this.lender.answerer("beta", extent)!.send(lent, answer, (outcome) => this.outcomes.push(outcome));
  }

  /** The oldest message arrives, and its sender hears so. */
  deliver(keep = false): void {
    const message = keep ? this.wire[0]! : this.wire.shift()!;
    const answered = (answer: MessageAnswer) => {
      if (keep) return;
      message.told(
        answer === null
          ? { kind: "taken" }
          : { kind: "refused", reason: answer.reason, information: answer.information ?? 0 },
      );
    };
    if (message.kind === MessageKind.lend) this.borrower.lent("alpha", message.body, answered);
    else this.lender.givenBack("beta", message.body, answered);
  }
}

Deno.test("a lent connection comes back with the PDUs sent, padding and digests in them", () => {
  // Lost without it: the short cut.
  const pair = new Pair();
  pair.lend();
  pair.deliver();
  const data = new Uint8Array(1024).fill(0x5a);
  const sent = pair.sent!;
  assert.deepEqual(sent.subarray(0, 48), header(1));
  assert.deepEqual(sent.subarray(48, 1048), data.subarray(0, 1000));
  const digest = new DataView(sent.buffer).getUint32(1048, true);
  assert.equal(digest, crc32c(0, data, 0, 1000));
  assert.deepEqual(sent.subarray(1052, 1100), header(2));
  assert.deepEqual(sent.subarray(1100, 1122), data.subarray(0, 22));
  assert.deepEqual(sent.subarray(1122, 1124), new Uint8Array(2));
  assert.equal(sent.length, 1128);
  pair.borrowed!({ ...state, sendNext: 1000 + sent.length, sendUnacknowledged: 1000 + sent.length });
  pair.deliver();
  assert.deepEqual(pair.outcomes.map(({ kind }) => kind), ["sent"]);
  assert.equal(pair.lender.lent, 0);
  assert.equal(pair.timeMs, limits.shortCutSendMs);
});

Deno.test("what reading takes is not left for sending", () => {
  // Lost without it: a borrower that sends when its lender has reset the client already.
  const pair = new Pair();
  pair.readMs = 1_000;
  pair.lend();
  pair.deliver();
  assert.equal(pair.timeMs, limits.shortCutSendMs - 1_000);
});

Deno.test("what the borrower does not take is unsent", () => {
  // Lost without it: a connection that waits for nobody.
  const cases: Record<string, (pair: Pair) => void> = {
    "it is not the home": (pair) => pair.home = false,
    "its lease has run out": (pair) => pair.serves = false,
    "its kernel cannot": (pair) => pair.borrowProblem = "no",
    "its disk is too slow": (pair) => pair.readMs = limits.shortCutSendMs,
  };
  for (const [name, spoil] of Object.entries(cases)) {
    const pair = new Pair();
    spoil(pair);
    pair.lend();
    pair.deliver();
    if (pair.wire.length > 0) pair.deliver();
    assert.deepEqual(pair.outcomes.map(({ kind }) => kind), ["unsent"], name);
    assert.equal(pair.sent, null, name);
  }
});

Deno.test("a message that is lost, or an answer that never comes, leaves the connection to nobody", () => {
  // Lost without it: two owners of one sequence number.
  const lost = new Pair();
  lost.lend();
  lost.wire.shift()!.told({ kind: "lost", reason: "cut" });
  assert.deepEqual(lost.outcomes.map(({ kind }) => kind), ["unknown"]);

  const silent = new Pair();
  silent.lend();
  silent.deliver();
  silent.borrowed!(null); // the borrower has reset it
  assert.equal(silent.wire.length, 0);
  silent.clock.advance(limits.shortCutLeaseMs - 1);
  assert.equal(silent.outcomes.length, 0);
  silent.clock.advance(1);
  assert.deepEqual(silent.outcomes.map(({ kind }) => kind), ["unknown"]);
});

Deno.test("a message that comes twice, too late or from another member changes nothing", () => {
  // Lost without it: a state of one lend taken for that of the next.
  const pair = new Pair();
  pair.lend();
  pair.deliver();
  pair.borrowed!({ ...state, sendNext: 2128, sendUnacknowledged: 2128 });
  const back = pair.wire[0]!.body;
  pair.lender.givenBack("gamma", back, () => {});
  assert.equal(pair.outcomes.length, 0, "of another member");
  pair.deliver(true);
  pair.deliver();
  pair.lend();
  pair.lender.givenBack("beta", back, () => {});
  assert.deepEqual(pair.outcomes.map(({ kind }) => kind), ["sent"], "once");
  assert.equal(pair.lender.lent, 1);
});

Deno.test("what was lent by a process before this one is not given back to it", () => {
  // Lost without it: a connection that goes on here while the borrower sends on it, after a lender's quick new start.
  const before = new Pair();
  before.borrowProblem = "no";
  before.lend();
  before.deliver();
  const unsent = before.wire[0]!.body;
  const sender = new Pair();
  sender.lend();
  sender.deliver();
  sender.borrowed!({ ...state, sendNext: 2128, sendUnacknowledged: 2128 });
  const sent = sender.wire[0]!.body;

  const others: Record<string, TcpState> = {
    "of another client's port": { ...state, client: { ...state.client, port: 40_001 } },
    "of the same port again": { ...state, sendNext: 77_000, sendUnacknowledged: 77_000 },
  };
  for (const [name, other] of Object.entries(others)) {
    const after = new Pair();
    after.lend(other);
    after.lender.givenBack("beta", unsent, () => {});
    if (other.client.port !== state.client.port) after.lender.givenBack("beta", sent, () => {});
    assert.deepEqual(after.outcomes, [], name);
    assert.equal(after.lender.lent, 1, name);
  }
});

Deno.test("small answers, and those of members that are down, are forwarded", () => {
  // Lost without it: short cuts where they cost more than they save.
  const pair = new Pair();
  const { lender } = pair;
  assert.equal(lender.answerer("beta", { ...extent, lengthBytes: 511 }), null);
  assert.equal(lender.answerer("gamma", extent), null);
  assert.notEqual(lender.answerer("beta", extent), null);
  assert.equal(lender.answerer("beta", { ...extent, lengthBytes: limits.shortCutBytesMax + 512 }), null);
  pair.unreachable = "10.1.2.5";
  assert.equal(lender.answerer("beta", extent), null);
  pair.unreachable = "";
  pair.home = false;
  pair.lend();
  pair.deliver();
  assert.equal(lender.answerer("beta", extent), null, "it could not just now");
  pair.clock.advance(limits.shortCutRestMs);
  assert.notEqual(lender.answerer("beta", extent), null);
});
