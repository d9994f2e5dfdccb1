// The login phase of one connection, the target's end, as a machine: a login request goes in, what to answer comes out.
// RFC 7143 §6.3, §11.12, §11.13; the keys are decided by negotiation.ts, the proof by chap.ts.

import { limits } from "../base/limits.ts";
import type { RandomSource } from "../base/random.ts";
import { LoginRequest } from "../wire/iscsi/bhs.ts";
import { parseIscsiName } from "../wire/iscsi/names.ts";
import { LoginStage, LoginStatus } from "../wire/iscsi/status.ts";
import { formatText, parseList, parseText, textAnswer, type TextPair } from "../wire/iscsi/text.ts";
import { ChapTarget } from "./chap.ts";
import type { Handover } from "./handover.ts";
import { Negotiation, targetWishes } from "./negotiation.ts";
import type { TargetDirectory, TargetPortal, TargetRecord } from "./target_directory.ts";
import { TextInput, TextOutput } from "./text_chunks.ts";

/** What one login request is answered with. */
export type LoginStep =
  | {
    readonly kind: "answer";
    readonly stage: number;
    /** T bit and NSG; -1: no transition. */
    readonly nextStage: number;
    readonly continue: boolean;
    readonly text: Uint8Array;
  }
  /** Answered with this status, then the connection closes. `reason` is for the log. */
  | { readonly kind: "refuse"; readonly status: number; readonly reason: string };

export interface TargetLoginParts {
  readonly directory: TargetDirectory;
  readonly random: RandomSource;
  readonly portal: TargetPortal;
}

/** The initial MaxRecvDataSegmentLength of both ends bounds login PDUs (§13.12). */
const loginPieceBytes = 8192;
const pairsMax = 256;

export class TargetLogin {
  readonly negotiation: Negotiation = new Negotiation("target", targetWishes);
  /** Of the first request. */
  isid = 0;
  tsih = 0;
  connectionId = 0;
  cmdSn = 0;
  /** Known from the first complete text on. */
  initiatorName = "";
  /** Null in a discovery session. */
  target: TargetRecord | null = null;
  discovery = false;

  readonly #parts: TargetLoginParts;
  readonly #input = new TextInput();
  readonly #output = new TextOutput();
  #requests = 0;
  #stage = -1;
  #introduced = false;
  #ownDeclared = false;
  #chap: ChapTarget | null = null;
  #authenticated = false;
  /** The transition asked for by the request whose answer is being sent in pieces. */
  #transitTo = -1;

  constructor(parts: TargetLoginParts) {
    this.#parts = parts;
  }

  /** A login that another thread has finished. */
  static resume(
    parts: TargetLoginParts,
    handover: Pick<Handover, "login" | "parameters" | "declared">,
    target: TargetRecord,
  ): TargetLogin {
    const login = new TargetLogin(parts);
    Object.assign(login, handover.login);
    login.target = target;
    Object.assign(login.negotiation.parameters, handover.parameters);
    for (const [key, value] of handover.declared) login.negotiation.declared.set(key, value);
    return login;
  }

  /** Takes the login request at `at` of `view` with its data segment. */
  request(view: DataView, at: number, data: Uint8Array): LoginStep {
    this.#requests++;
    if (this.#requests > limits.loginRequestsMax) return refuse(initiatorError, "too many login requests");
    const problem = this.#requests === 1 ? this.#begin(view, at) : this.#continue(view, at);
    if (problem !== null) return problem;
    const transit = LoginRequest.transit.get(view, at) === 1;
    const more = LoginRequest.continue.get(view, at) === 1;
    const nextStage = LoginRequest.nextStage.get(view, at);
    if (transit && (more || nextStage <= this.#stage || nextStage === 2)) {
      return refuse(invalidRequest, "the transition asked for is impossible");
    }
    if (this.#output.pending) {
      if (data.length > 0) return refuse(initiatorError, "text came while the answer was not complete");
      return this.#answer();
    }
    if (!this.#input.add(data)) return refuse(initiatorError, "the text is too long");
    if (more) return { kind: "answer", stage: this.#stage, nextStage: -1, continue: false, text: nothing };
    const text = this.#input.take();
    const parsed = parseText(text, 0, text.length, pairsMax);
    if (parsed.kind === "malformed") return refuse(initiatorError, parsed.reason);
    return this.#exchange(parsed.pairs, transit ? nextStage : -1);
  }

  #begin(view: DataView, at: number): LoginStep | null {
    this.isid = LoginRequest.isid.get(view, at);
    this.tsih = LoginRequest.tsih.get(view, at);
    this.connectionId = LoginRequest.connectionId.get(view, at);
    this.cmdSn = LoginRequest.cmdSn.get(view, at);
    this.#stage = LoginRequest.currentStage.get(view, at);
    if (LoginRequest.versionMin.get(view, at) > 0) {
      return refuse(LoginStatus.unsupportedVersion.code, "the initiator does not speak version 0");
    }
    if (this.#stage > 1) return refuse(invalidRequest, "the first stage is no login stage");
    this.negotiation.leading = this.tsih === 0;
    return null;
  }

  #continue(view: DataView, at: number): LoginStep | null {
    const same = LoginRequest.isid.get(view, at) === this.isid &&
      LoginRequest.tsih.get(view, at) === this.tsih &&
      LoginRequest.connectionId.get(view, at) === this.connectionId;
    if (!same) return refuse(initiatorError, "ISID, TSIH or CID changed during login");
    if (LoginRequest.currentStage.get(view, at) !== this.#stage) {
      return refuse(invalidRequest, "the stage is not the one agreed");
    }
    return null;
  }

  #exchange(pairs: readonly TextPair[], wanted: number): LoginStep {
    const inSecurity = this.#stage === LoginStage.securityNegotiation;
    if (!this.#introduced && pairs.some((p) => p.key === "SessionType" && p.value === "Discovery")) {
      this.negotiation.discovery = true; // before any key is decided
    }
    const result = this.negotiation.receive(pairs, inSecurity ? "security" : "operational");
    if (result.kind === "error") return refuse(initiatorError, result.reason);
    const replies: TextPair[] = [];
    if (!this.#introduced) {
      const problem = this.#introduce(replies);
      if (problem !== null) return problem;
    }
    replies.push(...result.replies);
    if (inSecurity) {
      const problem = this.#authenticate(result.delegated, replies);
      if (problem !== null) return problem;
    } else if (!this.#ownDeclared) {
      this.#ownDeclared = true;
      replies.push(this.negotiation.declareOwn());
    }
    const settled = !inSecurity || this.#authenticated || this.#free;
    if (wanted >= 0 && !settled && this.#chap === null) {
      return refuse(
        LoginStatus.authenticationFailure.code,
        "the target asks for CHAP, the initiator offered none",
      );
    }
    this.#transitTo = settled ? wanted : -1;
    this.#output.put(formatText(replies));
    return this.#answer();
  }

  /** True when nobody has to prove anything. */
  get #free(): boolean {
    return this.#chap === null && (this.target === null || this.target.access.chap === null);
  }

  /** The next piece of the answer; the transition comes with the last one. */
  #answer(): LoginStep {
    const text = this.#output.next(
      Math.min(loginPieceBytes, this.negotiation.parameters.peerMaxRecvDataSegmentLength),
    );
    const more = this.#output.pending;
    const stage = this.#stage;
    const nextStage = more ? -1 : this.#transitTo;
    if (nextStage >= 0) this.#stage = nextStage;
    return { kind: "answer", stage, nextStage, continue: more, text };
  }

  /** The names of the first text: who it is, what it wants, and whether it may (§6.3.1, §11.12.5 to .7). */
  #introduce(replies: TextPair[]): LoginStep | null {
    this.#introduced = true;
    const declared = this.negotiation.declared;
    const initiator = declared.get("InitiatorName");
    if (initiator === undefined) return refuse(missingParameter, "InitiatorName is missing");
    const parsed = parseIscsiName(initiator, "tolerant");
    if (parsed.kind === "invalid") {
      return refuse(initiatorError, `InitiatorName is no iSCSI name: ${parsed.reason}`);
    }
    this.initiatorName = parsed.name;
    const sessionType = declared.get("SessionType") ?? "Normal";
    if (sessionType === "Discovery") {
      this.discovery = true;
      if (this.tsih !== 0) {
        return refuse(LoginStatus.cannotIncludeInSession.code, "a discovery session has one connection");
      }
      return null;
    }
    if (sessionType !== "Normal") {
      return refuse(
        LoginStatus.sessionTypeNotSupported.code,
        "the session type is neither Normal nor Discovery",
      );
    }
    return this.#findTarget(declared.get("TargetName"), replies);
  }

  #findTarget(targetName: string | undefined, replies: TextPair[]): LoginStep | null {
    if (targetName === undefined) return refuse(missingParameter, "TargetName is missing");
    const parsed = parseIscsiName(targetName, "tolerant");
    if (parsed.kind === "invalid") return refuse(LoginStatus.notFound.code, "TargetName is no iSCSI name");
    const { directory, portal } = this.#parts;
    const found = directory.lookup(parsed.name, this.initiatorName, portal);
    switch (found.kind) {
      case "notFound":
        return refuse(LoginStatus.notFound.code, "there is no such target");
      case "forbidden":
        return refuse(LoginStatus.authorizationFailure.code, "the initiator may not use this target here");
      case "unavailable":
        return refuse(LoginStatus.serviceUnavailable.code, "the target is not ready yet");
      case "found":
        break;
        // A verdict "redirect" (status class 1, with TargetAddress) belongs here when placement comes.
    }
    this.target = found.target;
    if (this.#stage !== LoginStage.securityNegotiation && found.target.access.chap !== null) {
      return refuse(
        LoginStatus.authenticationFailure.code,
        "the target asks for CHAP, the initiator skipped the stage",
      );
    }
    replies.push({ key: "TargetPortalGroupTag", value: String(portal.targetPortalGroupTag) }); // §13.9
    if (found.target.alias !== "") replies.push({ key: "TargetAlias", value: found.target.alias });
    return null;
  }

  /** AuthMethod and the keys of CHAP (§12.1). */
  #authenticate(pairs: readonly TextPair[], replies: TextPair[]): LoginStep | null {
    if (pairs.length === 0) return null;
    const failed = (reason: string) => refuse(LoginStatus.authenticationFailure.code, reason);
    const method = pairs.find((p) => p.key === "AuthMethod");
    if (method !== undefined) {
      if (pairs.length > 1) {
        return refuse(initiatorError, "keys of a method came before the method was agreed");
      }
      return this.#chooseMethod(method.value, replies);
    }
    if (this.#chap === null) return refuse(initiatorError, "CHAP keys came, but CHAP was not agreed");
    const step = this.#chap.receive(pairs);
    if (step.kind === "failed") return failed(step.reason);
    replies.push(...step.replies);
    if (step.kind === "authenticated") this.#authenticated = true;
    return null;
  }

  #chooseMethod(value: string, replies: TextPair[]): LoginStep | null {
    const offered = parseList(value) ?? [];
    const rule = this.target?.access ?? null;
    const wanted = rule === null || rule.chap === null ? textAnswer.none : "CHAP";
    if (!offered.includes(wanted)) {
      return refuse(
        LoginStatus.authenticationFailure.code,
        `the initiator does not offer AuthMethod ${wanted}`,
      );
    }
    if (rule !== null && rule.chap !== null) {
      this.#chap = new ChapTarget(rule.chap, rule.mutual, this.#parts.random);
    }
    replies.push({ key: "AuthMethod", value: wanted });
    return null;
  }
}

const nothing = new Uint8Array(0);
const initiatorError = LoginStatus.initiatorError.code;
const invalidRequest = LoginStatus.invalidRequestDuringLogin.code;
const missingParameter = LoginStatus.missingParameter.code;

function refuse(status: number, reason: string): LoginStep {
  return { kind: "refuse", status, reason };
}
