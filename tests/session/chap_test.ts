import { strict as assert } from "node:assert";
import type { RandomSource } from "../../lib/base/random.ts";
import {
  ChapInitiator,
  chapResponse,
  type ChapStep,
  ChapTarget,
  equalBytes,
} from "../../lib/session/chap.ts";
import { formatBase64, formatHex, parseBinary, type TextPair } from "../../lib/wire/iscsi/text.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const identity = { user: "alice", secret: bytes("a secret of alice") };
const target = { user: "vol0", secret: bytes("the target's own secret") };

function counting(from: number): RandomSource {
  let next = from;
  return { fill: (b) => b.forEach((_, i) => b[i] = next++ & 0xff) };
}

function replies(step: ChapStep): readonly TextPair[] {
  assert.notEqual(step.kind, "failed", step.kind === "failed" ? step.reason : "");
  return step.kind === "failed" ? [] : step.replies;
}

function reason(step: ChapStep): string {
  assert.equal(step.kind, "failed");
  return step.kind === "failed" ? step.reason : "";
}

const value = (pairs: readonly TextPair[], key: string) => pairs.find((p) => p.key === key)!.value;

Deno.test("chap: one way with every algorithm", () => {
  // Without this, an initiator that offers only one of the four could not log in.
  for (const [number, hash] of [["5", "md5"], ["6", "sha1"], ["7", "sha256"], ["8", "sha3-256"]] as const) {
    const end = new ChapTarget(identity, null, counting(7));
    const asked = replies(end.receive([{ key: "CHAP_A", value: number }]));
    assert.equal(value(asked, "CHAP_A"), number);
    const challenge = parseBinary(value(asked, "CHAP_C"), 1024)!;
    const response = chapResponse(hash, Number(value(asked, "CHAP_I")), identity.secret, challenge);
    // Hexadecimal and base64 are the same value.
    const text = number === "5" ? formatHex(response) : formatBase64(response);
    const done = end.receive([{ key: "CHAP_N", value: "alice" }, { key: "CHAP_R", value: text }]);
    assert.equal(done.kind, "authenticated");
  }
});

Deno.test("chap: MD5 as RFC 1994 computes it", () => {
  // Without this, both ends could share one mistake: id 1, secret "secret", challenge 16 bytes of 00..0f.
  // The value was computed with Python's hashlib.
  const response = chapResponse("md5", 1, bytes("secret"), Uint8Array.from({ length: 16 }, (_, i) => i));
  assert.equal(formatHex(response), "0x740e86463bda3a4d7017d6e0fba0699d");
});

Deno.test("chap: the strongest algorithm that both have wins", () => {
  // Without this, an initiator that lists MD5 first would be held to MD5.
  const end = new ChapTarget(identity, null, counting(0));
  assert.equal(value(replies(end.receive([{ key: "CHAP_A", value: "5,6,7,99" }])), "CHAP_A"), "7");
  const none = new ChapTarget(identity, null, counting(0));
  assert.match(reason(none.receive([{ key: "CHAP_A", value: "99" }])), /no algorithm/);
});

function run(initiator: ChapInitiator, end: ChapTarget): { target: ChapStep; initiator: ChapStep } {
  const asked = end.receive(initiator.begin());
  const answered = initiator.receive(replies(asked));
  const checked = end.receive(replies(answered));
  if (checked.kind === "failed" || answered.kind === "authenticated") {
    return { target: checked, initiator: answered };
  }
  return { target: checked, initiator: initiator.receive(replies(checked)) };
}

Deno.test("chap: both ends together, one way and mutual", () => {
  // Without this, the two machines could each be right and not fit.
  const oneWay = run(
    new ChapInitiator(identity, null, counting(1)),
    new ChapTarget(identity, target, counting(90)),
  );
  assert.deepEqual([oneWay.target.kind, oneWay.initiator.kind], ["authenticated", "authenticated"]);
  const mutual = run(
    new ChapInitiator(identity, target, counting(1)),
    new ChapTarget(identity, target, counting(90)),
  );
  assert.deepEqual([mutual.target.kind, mutual.initiator.kind], ["authenticated", "authenticated"]);
});

Deno.test("chap: a wrong name, a wrong secret and an impostor target are refused", () => {
  // Without this, anyone could use the volume, or pose as it.
  const wrongSecret = { user: "alice", secret: bytes("guess") };
  const wrongName = { user: "Alice", secret: identity.secret };
  for (const wrong of [wrongSecret, wrongName]) {
    const both = run(
      new ChapInitiator(wrong, null, counting(1)),
      new ChapTarget(identity, null, counting(9)),
    );
    assert.match(reason(both.target), /wrong/);
  }
  const impostor = { user: "vol0", secret: bytes("not the target") };
  const both = run(
    new ChapInitiator(identity, target, counting(1)),
    new ChapTarget(identity, impostor, counting(9)),
  );
  assert.match(reason(both.initiator), /wrong/);
});

function challenged(
  extra: (challenge: string) => TextPair[],
  mutual = target as typeof target | null,
): ChapStep {
  const end = new ChapTarget(identity, mutual, counting(3));
  const asked = replies(end.receive([{ key: "CHAP_A", value: "7" }]));
  const challenge = value(asked, "CHAP_C");
  const response = chapResponse(
    "sha256",
    Number(value(asked, "CHAP_I")),
    identity.secret,
    parseBinary(challenge, 1024)!,
  );
  return end.receive([
    { key: "CHAP_N", value: "alice" },
    { key: "CHAP_R", value: formatHex(response) },
    ...extra(challenge),
  ]);
}

Deno.test("chap: the target's own challenge reflected is refused", () => {
  // Without this, an attacker lets the target compute the answer to its own question.
  const step = challenged((c) => [{ key: "CHAP_I", value: "1" }, { key: "CHAP_C", value: c }]);
  assert.match(reason(step), /reflects/);
});

Deno.test("chap: challenges shorter than 16 or longer than 1024 bytes are refused", () => {
  // Without this, a one-byte challenge gathers a table of answers.
  for (const length of [1, 15, 1025]) {
    const c = formatHex(new Uint8Array(length));
    reason(challenged(() => [{ key: "CHAP_I", value: "1" }, { key: "CHAP_C", value: c }]));
  }
  const ok = challenged(() => [{ key: "CHAP_I", value: "255" }, {
    key: "CHAP_C",
    value: formatBase64(new Uint8Array(1024)),
  }]);
  assert.equal(ok.kind, "authenticated");
  reason(
    challenged(
      () => [{ key: "CHAP_I", value: "256" }, { key: "CHAP_C", value: formatHex(new Uint8Array(16)) }],
    ),
  );
});

Deno.test("chap: one secret for both directions, or none for the second, is refused", () => {
  // Without this, a response of one direction serves the other.
  const mutual = (c: typeof target | null) =>
    challenged(
      () => [{ key: "CHAP_I", value: "1" }, { key: "CHAP_C", value: formatHex(new Uint8Array(16)) }],
      c,
    );
  assert.match(reason(mutual({ user: "x", secret: identity.secret })), /same secret/);
  assert.match(reason(mutual(null)), /no identity/);
  const same = new ChapInitiator(identity, { user: "x", secret: identity.secret }, counting(0));
  assert.match(
    reason(same.receive([
      { key: "CHAP_A", value: "5" },
      { key: "CHAP_I", value: "1" },
      { key: "CHAP_C", value: formatHex(new Uint8Array(16)) },
    ])),
    /same secret/,
  );
});

Deno.test("chap: keys out of turn and missing keys fail, and no reason tells a value", () => {
  // Without this, a peer could skip the proof, or secrets could reach a log.
  const end = new ChapTarget(identity, target, counting(3));
  assert.match(reason(end.receive([{ key: "CHAP_N", value: "alice" }])), /out of turn/);
  const again = new ChapTarget(identity, target, counting(3));
  replies(again.receive([{ key: "CHAP_A", value: "5" }]));
  const text = reason(again.receive([{ key: "CHAP_N", value: "alice-name-value" }]));
  assert.ok(!text.includes("alice-name-value"));
  assert.match(reason(again.receive([{ key: "CHAP_A", value: "5" }])), /after the end/);
});

Deno.test("chap: bytes are equal only when length and content are", () => {
  // Without this, a prefix or an empty response would pass.
  assert.ok(equalBytes(bytes("ab"), bytes("ab")));
  for (const [a, b] of [["ab", "abab"], ["abab", "ab"], ["", "a"], ["a", ""], ["ab", "aa"]] as const) {
    assert.ok(!equalBytes(bytes(a), bytes(b)));
  }
});
