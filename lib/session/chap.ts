// CHAP, one way and mutual, as a machine for each end: RFC 7143 §12.1, RFC 1994. Text pairs go in, text pairs come out.
// No reason and no error ever holds a secret, a challenge or a response.

import { createHash } from "node:crypto";
import type { RandomSource } from "../base/random.ts";
import { formatHex, parseBinary, parseList, parseNumber, type TextPair } from "../wire/iscsi/text.ts";
import type { AccessRule, ChapIdentity } from "./target_directory.ts";

/** CHAP_A (RFC 7143 §12.1.1, IANA "PPP Authentication Algorithms"), the strongest first. */
const algorithms: readonly { readonly number: number; readonly hash: string }[] = Object.freeze([
  { number: 8, hash: "sha3-256" },
  { number: 7, hash: "sha256" },
  { number: 6, hash: "sha1" },
  { number: 5, hash: "md5" },
]);

export const chapLimits = Object.freeze({
  /** A shorter challenge can be met from a table of recorded answers. */
  challengeBytesMin: 16,
  /** RFC 7143 §12.1.3. */
  challengeBytesMax: 1024,
  /** What we send: as many bytes as the longest hash has. */
  challengeBytes: 32,
  /** The longest hash. */
  responseBytesMax: 32,
});

export type ChapStep =
  | { readonly kind: "continue"; readonly replies: readonly TextPair[] }
  /** This end is satisfied; `replies` still have to be sent. */
  | { readonly kind: "authenticated"; readonly replies: readonly TextPair[] }
  | { readonly kind: "failed"; readonly reason: string };

const encoder = new TextEncoder();

/** The target's end: it challenges the initiator, and answers a challenge of the initiator's if it can. */
export class ChapTarget {
  readonly #identity: ChapIdentity;
  readonly #mutual: ChapIdentity | null;
  readonly #random: RandomSource;
  #state: "algorithm" | "response" | "done" = "algorithm";
  #hash = "";
  #identifier = 0;
  #challenge: Uint8Array = new Uint8Array(0);

  constructor(identity: ChapIdentity, mutual: AccessRule["mutual"], random: RandomSource) {
    this.#identity = identity;
    this.#mutual = mutual;
    this.#random = random;
  }

  receive(pairs: readonly TextPair[]): ChapStep {
    if (this.#state === "algorithm") return this.#chooseAlgorithm(pairs);
    if (this.#state === "response") return this.#checkResponse(pairs);
    return failed("a CHAP key came after the end of the authentication");
  }

  #chooseAlgorithm(pairs: readonly TextPair[]): ChapStep {
    const stray = unexpected(pairs, ["CHAP_A"]);
    if (stray !== null) return stray;
    const offered = parseList(valueOf(pairs, "CHAP_A") ?? "")?.map((text) => parseNumber(text)) ?? [];
    const chosen = algorithms.find((a) => offered.includes(a.number));
    if (chosen === undefined) return failed("CHAP_A offers no algorithm that the target has");
    this.#hash = chosen.hash;
    this.#identifier = randomByte(this.#random);
    this.#challenge = new Uint8Array(chapLimits.challengeBytes);
    this.#random.fill(this.#challenge);
    this.#state = "response";
    return {
      kind: "continue",
      replies: [
        { key: "CHAP_A", value: String(chosen.number) },
        { key: "CHAP_I", value: String(this.#identifier) },
        { key: "CHAP_C", value: formatHex(this.#challenge) },
      ],
    };
  }

  #checkResponse(pairs: readonly TextPair[]): ChapStep {
    this.#state = "done";
    const stray = unexpected(pairs, ["CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C"]);
    if (stray !== null) return stray;
    const name = valueOf(pairs, "CHAP_N");
    const response = parseBinary(valueOf(pairs, "CHAP_R") ?? "", chapLimits.responseBytesMax);
    if (name === null || response === null) return failed("CHAP_N or CHAP_R is missing or no proper value");
    const expected = chapResponse(this.#hash, this.#identifier, this.#identity.secret, this.#challenge);
    // Both comparisons always run, so that time tells nothing about which one failed.
    const nameRight = equalBytes(encoder.encode(name), encoder.encode(this.#identity.user));
    const responseRight = equalBytes(response, expected);
    if (!nameRight || !responseRight) return failed("the CHAP name or response is wrong");
    if (valueOf(pairs, "CHAP_I") === null && valueOf(pairs, "CHAP_C") === null) {
      return { kind: "authenticated", replies: [] };
    }
    return this.#answerMutual(pairs);
  }

  #answerMutual(pairs: readonly TextPair[]): ChapStep {
    const challenge = parseChallenge(pairs);
    if ("kind" in challenge) return challenge;
    if (this.#mutual === null) {
      return failed("the initiator asks for mutual CHAP, but the target has no identity");
    }
    if (equalBytes(challenge.bytes, this.#challenge)) {
      return failed("the initiator reflects the target's challenge");
    }
    if (equalBytes(this.#mutual.secret, this.#identity.secret)) {
      return failed("both directions have the same secret (RFC 7143 §9.2.1)");
    }
    const response = chapResponse(this.#hash, challenge.identifier, this.#mutual.secret, challenge.bytes);
    return {
      kind: "authenticated",
      replies: [
        { key: "CHAP_N", value: this.#mutual.user },
        { key: "CHAP_R", value: formatHex(response) },
      ],
    };
  }
}

/** The initiator's end: it answers the target's challenge, and challenges the target when `mutual` is given. */
export class ChapInitiator {
  readonly #identity: ChapIdentity;
  readonly #mutual: ChapIdentity | null;
  readonly #random: RandomSource;
  readonly #offered: readonly number[];
  #state: "challenge" | "proof" | "done" = "challenge";
  #hash = "";
  #identifier = 0;
  #challenge: Uint8Array = new Uint8Array(0);

  /** `offered`: numbers of CHAP_A in the order of preference (tgtd 1.0.85 takes 7 for SHA-1, so it wants 5 alone). */
  constructor(
    identity: ChapIdentity,
    mutual: ChapIdentity | null,
    random: RandomSource,
    offered: readonly number[] = algorithms.map((a) => a.number),
  ) {
    this.#identity = identity;
    this.#mutual = mutual;
    this.#random = random;
    this.#offered = offered;
  }

  /** What to send once the target has answered AuthMethod=CHAP. */
  begin(): TextPair[] {
    return [{ key: "CHAP_A", value: this.#offered.join(",") }];
  }

  /**
   * "continue": send the replies and wait. "authenticated": without mutual CHAP it comes with replies to send; whether
   * the target took them is told by the login.
   */
  receive(pairs: readonly TextPair[]): ChapStep {
    if (this.#state === "challenge") return this.#answer(pairs);
    if (this.#state === "proof") return this.#checkProof(pairs);
    return failed("a CHAP key came after the end of the authentication");
  }

  #answer(pairs: readonly TextPair[]): ChapStep {
    this.#state = "done";
    const stray = unexpected(pairs, ["CHAP_A", "CHAP_I", "CHAP_C"]);
    if (stray !== null) return stray;
    const number = parseNumber(valueOf(pairs, "CHAP_A") ?? "");
    const chosen = algorithms.find((a) => a.number === number && this.#offered.includes(a.number));
    if (chosen === undefined) return failed("the target's CHAP_A is none of the algorithms offered");
    this.#hash = chosen.hash;
    const challenge = parseChallenge(pairs);
    if ("kind" in challenge) return challenge;
    const response = chapResponse(this.#hash, challenge.identifier, this.#identity.secret, challenge.bytes);
    const replies: TextPair[] = [
      { key: "CHAP_N", value: this.#identity.user },
      { key: "CHAP_R", value: formatHex(response) },
    ];
    if (this.#mutual === null) return { kind: "authenticated", replies };
    if (equalBytes(this.#mutual.secret, this.#identity.secret)) {
      return failed("both directions have the same secret (RFC 7143 §9.2.1)");
    }
    this.#identifier = randomByte(this.#random);
    this.#challenge = new Uint8Array(chapLimits.challengeBytes);
    this.#random.fill(this.#challenge);
    replies.push({ key: "CHAP_I", value: String(this.#identifier) });
    replies.push({ key: "CHAP_C", value: formatHex(this.#challenge) });
    this.#state = "proof";
    return { kind: "continue", replies };
  }

  #checkProof(pairs: readonly TextPair[]): ChapStep {
    this.#state = "done";
    const stray = unexpected(pairs, ["CHAP_N", "CHAP_R"]);
    if (stray !== null) return stray;
    const mutual = this.#mutual!;
    const name = valueOf(pairs, "CHAP_N");
    const response = parseBinary(valueOf(pairs, "CHAP_R") ?? "", chapLimits.responseBytesMax);
    if (name === null || response === null) return failed("the target did not prove itself");
    const expected = chapResponse(this.#hash, this.#identifier, mutual.secret, this.#challenge);
    const nameRight = equalBytes(encoder.encode(name), encoder.encode(mutual.user));
    const responseRight = equalBytes(response, expected);
    return nameRight && responseRight
      ? { kind: "authenticated", replies: [] }
      : failed("the target's CHAP name or response is wrong");
  }
}

/** RFC 1994 §4.1: hash(identifier, secret, challenge). */
export function chapResponse(
  hash: string,
  identifier: number,
  secret: Uint8Array,
  challenge: Uint8Array,
): Uint8Array {
  return createHash(hash).update(Uint8Array.of(identifier)).update(secret).update(challenge).digest();
}

/** Compares in a time that depends on the lengths alone. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[b.length === 0 ? 0 : i % b.length]!;
  return difference === 0;
}

function parseChallenge(
  pairs: readonly TextPair[],
): { readonly identifier: number; readonly bytes: Uint8Array } | ChapStep & { readonly kind: "failed" } {
  const identifier = parseNumber(valueOf(pairs, "CHAP_I") ?? "");
  if (identifier === null || identifier > 255) return failed("CHAP_I is missing or no number below 256");
  const bytes = parseBinary(valueOf(pairs, "CHAP_C") ?? "", chapLimits.challengeBytesMax);
  if (bytes === null) return failed("CHAP_C is missing or no binary value of at most 1024 bytes");
  if (bytes.length < chapLimits.challengeBytesMin) return failed("CHAP_C is shorter than 16 bytes");
  return { identifier, bytes };
}

function unexpected(pairs: readonly TextPair[], keys: readonly string[]): ChapStep | null {
  const stray = pairs.find((p) => !keys.includes(p.key));
  return stray === undefined ? null : failed(`key ${stray.key} came out of turn`);
}

function valueOf(pairs: readonly TextPair[], key: string): string | null {
  return pairs.find((p) => p.key === key)?.value ?? null;
}

function randomByte(random: RandomSource): number {
  const one = new Uint8Array(1);
  random.fill(one);
  return one[0]!;
}

function failed(reason: string): ChapStep & { readonly kind: "failed" } {
  return { kind: "failed", reason };
}
