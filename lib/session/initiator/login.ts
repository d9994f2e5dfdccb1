// The initiator's end of a login, RFC 7143 §6.3 and §11.12, as a machine: Login Responses go in, what to send next
// comes out. Values are decided by the negotiation that both ends share.

import type { RandomSource } from "../../base/random.ts";
import { codeText, LoginStage, LoginStatus } from "../../wire/iscsi/status.ts";
import { parseText, type TextPair } from "../../wire/iscsi/text.ts";
import { ChapInitiator } from "../chap.ts";
import type { Negotiation } from "../negotiation.ts";
import type { ChapIdentity } from "../target_directory.ts";

export interface LoginIdentity {
  readonly initiatorName: string;
  /** Null: a discovery session. */
  readonly targetName: string | null;
  /** With what the initiator proves itself; null: AuthMethod None. */
  readonly chap: ChapIdentity | null;
  /** What the target must prove; asks for `chap` too. */
  readonly mutual: ChapIdentity | null;
  /** Numbers of CHAP_A in the order of preference; absent: every one that we have, the strongest first. */
  readonly chapAlgorithms?: readonly number[];
}

/** What a Login Response says beside its text. */
export interface LoginResponseParts {
  readonly transit: boolean;
  readonly continue: boolean;
  readonly currentStage: number;
  readonly nextStage: number;
  /** Status-Class and Status-Detail as one number. */
  readonly status: number;
}

export type LoginStep =
  | {
    readonly kind: "send";
    readonly transit: boolean;
    readonly currentStage: number;
    readonly nextStage: number;
    readonly pairs: readonly TextPair[];
  }
  | { readonly kind: "done" }
  /** `address` is the TargetAddress: "1.2.3.4:3260,1", the tag and the port being optional. */
  | { readonly kind: "redirected"; readonly permanent: boolean; readonly address: string }
  /** `status` is the target's, or null when this end gave up. */
  | { readonly kind: "failed"; readonly reason: string; readonly status: number | null };

/** Exchanges of one login; five are enough with mutual CHAP. */
const exchangesMax = 32;
/** Text of one target's answer, pieces of the C bit joined. */
const textBytesMax = 64 * 1024;

export class InitiatorLogin {
  readonly #identity: LoginIdentity;
  readonly #negotiation: Negotiation;
  readonly #chap: ChapInitiator | null;
  #stage: number = LoginStage.securityNegotiation;
  /** What the security stage waits for. */
  #security: "method" | "challenge" | "proof" | "transit" = "method";
  #transitAsked = true;
  #exchanges = 0;
  #text = new Uint8Array(0);

  constructor(identity: LoginIdentity, negotiation: Negotiation, random: RandomSource) {
    this.#identity = identity;
    this.#negotiation = negotiation;
    const { chap, mutual, chapAlgorithms } = identity;
    this.#chap = chap === null ? null : new ChapInitiator(chap, mutual, random, chapAlgorithms);
    negotiation.discovery = identity.targetName === null;
  }

  /** The first request. */
  begin(): LoginStep {
    const { initiatorName, targetName } = this.#identity;
    const pairs: TextPair[] = [
      { key: "InitiatorName", value: initiatorName },
      { key: "SessionType", value: targetName === null ? "Discovery" : "Normal" },
    ];
    if (targetName !== null) pairs.push({ key: "TargetName", value: targetName });
    pairs.push({ key: "AuthMethod", value: this.#chap === null ? "None" : "CHAP" });
    return this.#send(pairs, this.#chap === null);
  }

  /** `text[start .. end)` is the response's data segment. */
  receive(response: LoginResponseParts, text: Uint8Array, start: number, end: number): LoginStep {
    if (++this.#exchanges > exchangesMax) {
      return failed(`the login did not end within ${exchangesMax} exchanges`);
    }
    const whole = new Uint8Array(this.#text.length + end - start);
    whole.set(this.#text);
    whole.set(text.subarray(start, end), this.#text.length);
    if (whole.length > textBytesMax) return failed(`the target's text is longer than ${textBytesMax} bytes`);
    this.#text = whole;
    if (response.continue && response.status === LoginStatus.success!.code) return this.#send([], false);
    this.#text = new Uint8Array(0);
    const parsed = parseText(whole, 0, whole.length);
    const pairs = parsed.kind === "pairs" ? parsed.pairs : [];
    if (response.status !== LoginStatus.success!.code) return refused(response.status, pairs);
    if (parsed.kind === "malformed") return failed(`the target's text is malformed: ${parsed.reason}`);
    if (response.currentStage !== this.#stage) {
      return failed(`the target answers in stage ${response.currentStage}, not ${this.#stage}`);
    }
    if (response.transit && !this.#transitAsked) {
      return failed("the target leaves a stage without being asked to");
    }
    const security = this.#stage === LoginStage.securityNegotiation;
    const negotiated = this.#negotiation.receive(pairs, security ? "security" : "operational");
    if (negotiated.kind === "error") return failed(negotiated.reason);
    return security
      ? this.#inSecurity(response, negotiated.delegated, negotiated.replies)
      : this.#inOperational(response, negotiated.replies);
  }

  #inSecurity(
    response: LoginResponseParts,
    delegated: readonly TextPair[],
    replies: readonly TextPair[],
  ): LoginStep {
    let chapPairs = delegated;
    if (this.#security === "method") {
      const method = delegated.find((p) => p.key === "AuthMethod")?.value;
      chapPairs = delegated.filter((p) => p.key !== "AuthMethod");
      if (this.#chap === null) {
        if (method !== undefined && method !== "None") {
          return failed(`the target answers AuthMethod=${method}`);
        }
        this.#security = "transit";
      } else {
        if (method !== "CHAP") return failed(`the target answers AuthMethod=${method ?? "nothing"} to CHAP`);
        if (response.transit) return failed("the target leaves the security stage without CHAP");
        this.#security = "challenge";
        return this.#send([...replies, ...this.#chap.begin()], false);
      }
    } else if (this.#security !== "transit") {
      const step = this.#chap!.receive(chapPairs);
      if (step.kind === "failed") return failed(step.reason);
      if (this.#security === "challenge") {
        this.#security = step.kind === "continue" ? "proof" : "transit";
        if (response.transit) return failed("the target leaves the security stage before CHAP has ended");
        return this.#send([...replies, ...step.replies], true);
      }
      this.#security = "transit";
      chapPairs = [];
    }
    if (chapPairs.length > 0) return failed(`key ${chapPairs[0]!.key} came out of turn`);
    if (!response.transit) return this.#send(replies, true);
    if (response.nextStage !== LoginStage.loginOperationalNegotiation) {
      return failed(`the target goes to stage ${response.nextStage}, not to operational negotiation`);
    }
    this.#stage = LoginStage.loginOperationalNegotiation;
    return this.#send(this.#negotiation.offers(), true);
  }

  #inOperational(response: LoginResponseParts, replies: readonly TextPair[]): LoginStep {
    if (!response.transit) return this.#send(replies, true);
    if (response.nextStage !== LoginStage.fullFeaturePhase) {
      return failed(`the target goes to stage ${response.nextStage}, not to full feature phase`);
    }
    if (replies.length > 0) return failed(`the target ends the login while it asks for ${replies[0]!.key}`);
    return { kind: "done" };
  }

  #send(pairs: readonly TextPair[], transit: boolean): LoginStep {
    this.#transitAsked = transit;
    const security = this.#stage === LoginStage.securityNegotiation;
    return {
      kind: "send",
      transit,
      currentStage: this.#stage,
      nextStage: !transit
        ? 0
        : security
        ? LoginStage.loginOperationalNegotiation
        : LoginStage.fullFeaturePhase,
      pairs,
    };
  }
}

function failed(reason: string): LoginStep {
  return { kind: "failed", reason, status: null };
}

function refused(status: number, pairs: readonly TextPair[]): LoginStep {
  const address = pairs.find((p) => p.key === "TargetAddress")?.value;
  const permanent = status === LoginStatus.targetMovedPermanently!.code;
  if ((permanent || status === LoginStatus.targetMovedTemporarily!.code) && address !== undefined) {
    return { kind: "redirected", permanent, address };
  }
  const words = codeText(LoginStatus, status) ?? "not defined";
  return {
    kind: "failed",
    reason: `the target refused with status ${status.toString(16).padStart(4, "0")}h (${words})`,
    status,
  };
}
