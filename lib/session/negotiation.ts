// Negotiation of text keys, RFC 7143 §6.2 and §6.3: one machine for both ends, over the table of key_table.ts.
// It decides values; what login or text does with names, CHAP and SendTargets is for the callers.

import {
  formatBoolean,
  parseBoolean,
  parseList,
  parseNumber,
  textAnswer,
  textLimits,
  type TextPair,
} from "../wire/iscsi/text.ts";
import {
  type BooleanParameter,
  defaultParameters,
  type Phase,
  type Role,
  type Rule,
  ruleOf,
  rules,
  type SessionParameters,
  type Wishes,
} from "./key_table.ts";

export {
  defaultParameters,
  initiatorWishes,
  type Phase,
  type Role,
  type SessionParameters,
  targetWishes,
  type Wishes,
} from "./key_table.ts";

export type Negotiated =
  | {
    readonly kind: "ok";
    /** Answers to send, in the order of the questions. */
    readonly replies: readonly TextPair[];
    /** AuthMethod, CHAP_* and SendTargets, for those who decide them. */
    readonly delegated: readonly TextPair[];
  }
  /** The peer broke the rules: a target rejects the login (0200h) or text, an initiator drops the connection (§6.3). */
  | { readonly kind: "error"; readonly reason: string };

/** One end's negotiation of one connection, from the first login request to the end of the session. */
export class Negotiation {
  readonly parameters: SessionParameters = defaultParameters();
  /** Declared by the peer: InitiatorName, TargetName, SessionType, TargetAddress (the last), aliases, … */
  readonly declared: Map<string, string> = new Map();
  /** Set by the login once it is known: keys marked so are then Irrelevant. */
  discovery = false;
  /** False for a connection that joins a session: leading-only keys are then rejected. */
  leading = true;

  readonly #role: Role;
  readonly #wishes: Wishes;
  /** Keys the peer has used in this sequence: once each (RFC 7143 §6.3). */
  readonly #seen = new Set<string>();
  /** Keys that we offered and that await an answer, with what we offered. */
  readonly #offered = new Set<string>();
  #initialR2tKnown = false;
  #immediateDataKnown = false;

  constructor(role: Role, wishes: Wishes) {
    this.#role = role;
    this.#wishes = wishes;
  }

  /** A new text negotiation in full feature phase: keys may come again (RFC 7143 §6.4). */
  beginSequence(): void {
    this.#seen.clear();
    this.#offered.clear();
  }

  /** Our MaxRecvDataSegmentLength, to be sent once in the operational stage. */
  declareOwn(): TextPair {
    this.parameters.ownMaxRecvDataSegmentLength = this.#wishes.maxRecvDataSegmentLength;
    return { key: "MaxRecvDataSegmentLength", value: String(this.#wishes.maxRecvDataSegmentLength) };
  }

  /** Initiator: everything that is offered in the operational stage of a leading login. */
  offers(): TextPair[] {
    const out: TextPair[] = [];
    for (const rule of rules) {
      if (rule.normalOnly === true && this.discovery) continue;
      if (rule.use === "leadingOnly" && !this.leading) continue;
      const value = this.#offerOf(rule);
      if (value === null) continue;
      this.#offered.add(rule.key);
      out.push({ key: rule.key, value });
    }
    out.push(this.declareOwn());
    return out;
  }

  /** A connection joins a session: what the session agreed stays, what belongs to the connection is its own. */
  join(session: Readonly<SessionParameters>): void {
    const { headerDigest, dataDigest, peerMaxRecvDataSegmentLength, ownMaxRecvDataSegmentLength } =
      this.parameters;
    Object.assign(this.parameters, session, {
      headerDigest,
      dataDigest,
      peerMaxRecvDataSegmentLength,
      ownMaxRecvDataSegmentLength,
    });
  }

  /** True while the peer owes answers to keys whose result it decides with us. */
  get awaitsAnswers(): boolean {
    return this.#offered.size > 0;
  }

  /** Takes the peer's text of one exchange. FirstBurstLength is decided last: it depends on the keys beside it. */
  receive(pairs: readonly TextPair[], phase: Phase): Negotiated {
    const replies: (TextPair | null)[] = [];
    const toOthers: TextPair[] = [];
    const later: { pair: TextPair; rule: Rule; at: number }[] = [];
    for (const pair of pairs) {
      const problem = this.#once(pair);
      if (problem !== null) return { kind: "error", reason: problem };
      const rule = ruleOf.get(pair.key);
      if (rule === undefined) {
        if (!isAnswer(pair.value)) replies.push({ key: pair.key, value: textAnswer.notUnderstood });
        continue;
      }
      const wrong = this.#outOfPlace(rule, pair, phase);
      if (wrong === "answered") continue;
      if (wrong === "reject") {
        replies.push({ key: pair.key, value: textAnswer.reject });
        continue;
      }
      if (wrong !== null) return { kind: "error", reason: wrong };
      if (rule.kind.type === "delegated") {
        toOthers.push(pair);
        continue;
      }
      if (rule.key === "FirstBurstLength") {
        later.push({ pair, rule, at: replies.push(null) - 1 });
        continue;
      }
      const answer = this.#take(rule, pair);
      if (typeof answer === "string") return { kind: "error", reason: answer };
      if (answer !== null) replies.push(answer);
    }
    for (const { pair, rule, at } of later) {
      const answer = this.#take(rule, pair);
      if (typeof answer === "string") return { kind: "error", reason: answer };
      replies[at] = answer;
    }
    return { kind: "ok", replies: replies.filter((r) => r !== null), delegated: toOthers };
  }

  /** A complaint when the peer uses a key twice in one sequence (RFC 7143 §6.3); TargetAddress may repeat. */
  #once(pair: TextPair): string | null {
    if (pair.key === "TargetAddress" || (pair.key === "TargetName" && this.#role === "initiator")) {
      return null;
    }
    // The keys of CHAP come once a sequence too; AuthMethod's answer and question are different senders'.
    if (this.#seen.has(pair.key)) return `key ${pair.key} came twice in one negotiation`;
    this.#seen.add(pair.key);
    return null;
  }

  /** What is wrong with the key here: a complaint, "reject" to answer so, "answered" for a non-answer, or null. */
  #outOfPlace(rule: Rule, pair: TextPair, phase: Phase): string | "reject" | "answered" | null {
    const isReply = this.#offered.has(rule.key);
    const negotiated = rule.kind.type !== "declared" && rule.kind.type !== "declaredNumber";
    const peer: Role = this.#role === "target" ? "initiator" : "target";
    if (!isReply && isAnswer(pair.value) && rule.kind.type !== "delegated") {
      // Answers to what we declared (a peer need not know our keys), or to nothing.
      return negotiated ? `answer ${pair.key}=${pair.value} to a key that was not offered` : "answered";
    }
    if (rule.sender !== "both" && rule.sender !== peer) return `key ${rule.key} is not the ${peer}'s to send`;
    const allowed = phase === "security"
      ? rule.use === "security" || rule.anyStage === true
      : phase === "operational"
      ? rule.use !== "security" && rule.use !== "fullFeatureOnly"
      : rule.use === "all" || rule.use === "fullFeatureOnly";
    if (!allowed) return "reject";
    if (rule.use === "leadingOnly" && !this.leading && negotiated) return "reject";
    return null;
  }

  /** Decides one key: an answer to send, null for none, or a complaint. */
  #take(rule: Rule, pair: TextPair): TextPair | string | null {
    const { key, value } = pair;
    const kind = rule.kind;
    if (kind.type === "obsolete") return { key, value: kind.answer };
    if (kind.type === "declared") {
      if (value.length > textLimits.simpleValueBytesMax) return `the value of ${key} is too long`;
      this.declared.set(key, value);
      return null;
    }
    if (kind.type === "declaredNumber") {
      const length = parseNumber(value);
      if (length === null || length < kind.min || length > kind.max) return `${key} is out of range`;
      this.parameters.peerMaxRecvDataSegmentLength = length;
      return null;
    }
    const reply = this.#offered.delete(key);
    if (reply) return this.#takeAnswer(rule, value);
    if (rule.normalOnly === true && this.discovery) return { key, value: textAnswer.irrelevant };
    const decided = this.#decide(rule, value);
    return { key, value: decided ?? textAnswer.reject };
  }

  /** Responder: the result of the peer's offer and our wish, set and as text; null when the offer is inadmissible. */
  #decide(rule: Rule, value: string): string | null {
    const kind = rule.kind;
    if (kind.type === "number") {
      const offer = parseNumber(value);
      if (offer === null || offer < kind.min || offer > kind.max) return null;
      let wish = this.#wishes[kind.parameter];
      if (kind.parameter === "firstBurstLength") {
        if (this.#firstBurstIrrelevant()) return textAnswer.irrelevant;
        wish = Math.min(wish, this.parameters.maxBurstLength); // §13.14: never above MaxBurstLength
      }
      const result = kind.result === "min" ? Math.min(offer, wish) : Math.max(offer, wish);
      this.parameters[kind.parameter] = result;
      return String(result);
    }
    if (kind.type === "boolean") {
      const offer = parseBoolean(value);
      if (offer === null) return null;
      const wish = this.#wishes[kind.parameter];
      const result = kind.result === "and" ? offer && wish : offer || wish;
      this.#setBoolean(kind.parameter, result);
      return formatBoolean(result);
    }
    if (kind.type === "list") {
      const offer = parseList(value);
      const result = offer?.find((v) => this.#wishes[kind.parameter].includes(v));
      if (result === undefined) return null;
      this.parameters[kind.parameter] = result;
      return result;
    }
    return null;
  }

  /** §13.14: unsolicited data is impossible, so its length means nothing. */
  #firstBurstIrrelevant(): boolean {
    return this.#initialR2tKnown && this.#immediateDataKnown && this.parameters.initialR2t &&
      !this.parameters.immediateData;
  }

  #setBoolean(parameter: BooleanParameter, value: boolean): void {
    this.parameters[parameter] = value;
    if (parameter === "initialR2t") this.#initialR2tKnown = true;
    if (parameter === "immediateData") this.#immediateDataKnown = true;
  }

  /** Originator: the peer's answer must be a possible result of our offer (RFC 7143 §6.2). Null, or a complaint. */
  #takeAnswer(rule: Rule, value: string): string | null {
    // Irrelevant, Reject and NotUnderstood leave the default (§6.2).
    if (isAnswer(value) && !(rule.kind.type === "list" && value === textAnswer.none)) return null;
    const kind = rule.kind;
    const bad = `the answer to ${rule.key} is not a result of what was offered`;
    if (kind.type === "number") {
      const result = parseNumber(value);
      const wish = this.#wishes[kind.parameter];
      if (result === null || result < kind.min || result > kind.max) return bad;
      if (kind.result === "min" ? result > wish : result < wish) return bad;
      this.parameters[kind.parameter] = result;
      return null;
    }
    if (kind.type === "boolean") {
      const result = parseBoolean(value);
      const decisive = kind.result === "or"; // an offered Yes decides an OR, an offered No an AND
      if (result === null || (this.#wishes[kind.parameter] === decisive && result !== decisive)) return bad;
      this.#setBoolean(kind.parameter, result);
      return null;
    }
    if (kind.type === "list") {
      if (!this.#wishes[kind.parameter].includes(value)) return bad;
      this.parameters[kind.parameter] = value;
    }
    return null;
  }

  /** Originator: the value to offer, or null for keys that are not offered. */
  #offerOf(rule: Rule): string | null {
    const kind = rule.kind;
    if (kind.type === "number") return String(this.#wishes[kind.parameter]);
    if (kind.type === "list") return this.#wishes[kind.parameter].join(",");
    if (kind.type !== "boolean") return null;
    const wish = this.#wishes[kind.parameter];
    // A decisive offer needs no answer (§6.2.2), so its result holds at once.
    if (wish === (kind.result === "or")) this.#setBoolean(kind.parameter, wish);
    return formatBoolean(wish);
  }
}

/** Values that are answers and never offers. "None" is an ordinary value of lists. */
function isAnswer(value: string): boolean {
  return value === textAnswer.reject || value === textAnswer.irrelevant || value === textAnswer.notUnderstood;
}
