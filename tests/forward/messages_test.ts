// Without these, what members tell each other could be lost without a word, taken from a stranger, or hold a member up.

import { strict as assert } from "node:assert";
import { BufferPool } from "../../lib/base/buffer_pool.ts";
import { silentLog } from "../../lib/base/log.ts";
import { limits } from "../../lib/base/limits.ts";
import {
  MemberDirectory,
  memberName,
  type MessageAnswer,
  type MessageOutcome,
  MessageServer,
  Messenger,
} from "../../lib/forward/mod.ts";
import { memberTargetName, messageClass } from "../../lib/forward/identity.ts";
import { describePdus } from "../../lib/wire/iscsi/dump.ts";
import { MemberMessage, MessageKind } from "../../lib/wire/scsi/member_message.ts";
import { TargetNode } from "../../lib/session/target_node.ts";
import { StepClock } from "./bench.ts";
import { LoopNetwork, seeded } from "./loop_network.ts";

const iqnPrefix = "iqn.2026-11.net.plimsoll.test";
const secret = "a secret of the whole group";
const address = (i: number) => ({ hostname: `10.0.0.${i}`, port: 3262 });

class Pair {
  readonly clock = new StepClock();
  readonly network = new LoopNetwork();
  readonly server: MessageServer;
  readonly got: string[] = [];
  answer: MessageAnswer = null;
  /** Listeners that have not answered. */
  readonly held: (() => void)[] = [];
  holding = false;
  messenger: Messenger;
  readonly #choose = seeded(7);

  constructor(asks = secret) {
    const random = {
      fill: (bytes: Uint8Array) => void bytes.forEach((_, i) => bytes[i] = this.#choose(256)),
    };
    this.server = new MessageServer(memberName(iqnPrefix, ""));
    this.server.listen(MessageKind.intent, (from, body, answer) => {
      this.got.push(`${from}: ${new TextDecoder().decode(body)}`);
      if (this.holding) this.held.push(() => answer(this.answer));
      else answer(this.answer);
    });
    const node = new TargetNode({
      clock: this.clock,
      random,
      log: silentLog,
      pool: new BufferPool(1 << 20),
      directory: new MemberDirectory(iqnPrefix, "beta", secret, [
        this.server.hopClass,
        this.server.hopClass,
        this.server.hopClass,
      ]),
      relativeTargetPort: 2,
    });
    const portal = { address: address(2), targetPortalGroupTag: 2 };
    void this.network.host("10.0.0.2").listen(address(2), (stream) => node.accept(portal, stream));
    this.messenger = new Messenger({
      clock: this.clock,
      random,
      network: this.network.host("10.0.0.1"),
      iqnPrefix,
      member: "alpha",
      secret: asks,
      peerOf: (name) => name === "beta" ? { address: address(2), run: "1" } : null,
    });
  }

  send(text: string, kind: number = MessageKind.intent, member = "beta"): MessageOutcome[] {
    const told: MessageOutcome[] = [];
    this.messenger.send(member, kind, new TextEncoder().encode(text), 1000, (o) => told.push(o));
    return told;
  }

  async run(ms = 0): Promise<void> {
    for (let quiet = 0; quiet < 20;) {
      if (this.network.step(this.#choose)) quiet = 0;
      else {
        quiet++;
        await Promise.resolve();
      }
    }
    if (ms > 0) {
      this.clock.advanceTo(this.clock.now + ms);
      await this.run();
    }
  }
}

Deno.test("a message is told by its sender's name, and taken or refused with a reason", async () => {
  const pair = new Pair();
  const first = pair.send("one");
  await pair.run();
  assert.deepEqual([first, pair.got], [[{ kind: "taken" }], ["alpha: one"]]);
  pair.answer = { reason: 3, information: 77 };
  const second = pair.send("two");
  const unknown = pair.send("three", 99);
  await pair.run();
  assert.deepEqual(second, [{ kind: "refused", reason: 3, information: 77 }]);
  assert.deepEqual(unknown, [{ kind: "refused", reason: 0x80, information: 0 }]);
  assert.equal(pair.network.open, 2, "one connection, both ends of it");
  const nobody = pair.send("x", MessageKind.intent, "gamma");
  assert.deepEqual(nobody, [{ kind: "lost", reason: "it is down" }]);
});

Deno.test("a message to a member that hangs is lost after its time, and the next one gets through", async () => {
  // Lost without it: a login or a move that waits for ever.
  const pair = new Pair();
  pair.holding = true;
  const first = pair.send("one");
  await pair.run();
  assert.deepEqual(first, []);
  await pair.run(1001);
  assert.deepEqual(first, [{ kind: "lost", reason: "no answer within 1000 ms" }]);
  pair.holding = false;
  for (const answer of pair.held.splice(0)) answer();
  await pair.run();
  const second = pair.send("two");
  await pair.run();
  assert.deepEqual(second, [{ kind: "taken" }]);
  pair.network.cutAll("10.0.0.2");
  const third = pair.send("three");
  await pair.run();
  assert.deepEqual(third, [{ kind: "taken" }], "a cut connection is made again");
  pair.network.muted.add("10.0.0.2");
  const fourth = pair.send("four");
  await pair.run(1001);
  assert.deepEqual(fourth.map(({ kind }) => kind), ["lost"]);
});

Deno.test("nobody gets a word in without the group's secret, and no more wait than there is room for", async () => {
  const stranger = new Pair("another secret of a group");
  const told = stranger.send("one");
  await stranger.run(1001);
  assert.deepEqual([told.map(({ kind }) => kind), stranger.got], [["lost"], []]);

  const pair = new Pair();
  pair.network.muted.add("10.0.0.2");
  const all = Array.from({ length: limits.messagesMax + 1 }, (_, i) => pair.send(`${i}`));
  assert.deepEqual(all.at(-1)!.map(({ kind }) => kind), ["lost"]);
  assert.deepEqual(all[0], []);
  pair.messenger.close();
  assert.ok(all.every((told) => told.length === 1), "each is told once");
  assert.deepEqual(pair.send("late"), [{ kind: "lost", reason: "the member stops" }]);
});

Deno.test("the header of a message lies where the document puts it, and decode names it", () => {
  const cdb = new Uint8Array(24).fill(0xa5);
  const at = 3;
  cdb.fill(0, at, at + 16);
  const view = new DataView(cdb.buffer);
  view.setUint8(at, MemberMessage.opcode);
  MemberMessage.fields.version.set(view, at, 1);
  MemberMessage.fields.kind.set(view, at, 0x0102);
  MemberMessage.fields.lengthBytes.set(view, at, 0x0a0b0c0d);
  assert.equal(cdb.slice(at, at + 16).toHex(), "c21001020a0b0c0d0000000000000000");
  assert.equal(memberTargetName(iqnPrefix, "beta", messageClass), `${iqnPrefix}:member.beta:3`);

  const pdu = new Uint8Array(48);
  pdu.set([0x01, 0xa1]);
  pdu.set(cdb.slice(at, at + 16), 32);
  const described = describePdus(pdu);
  assert.equal(described.kind === "bad" ? "" : described.pdus[0]!.cdb!.command, "PLIMSOLL MEMBER MESSAGE");
});
