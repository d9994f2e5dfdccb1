// Negotiation of text keys, RFC 7143 §6.2, §6.3 and §13: every key in one table, one machine for both ends.
// It decides values; what login or text does with names, CHAP and SendTargets is for the callers.

import { limits } from "../base/limits.ts";
import {
  formatBoolean,
  parseBoolean,
  parseList,
  parseNumber,
  textAnswer,
  textLimits,
  type TextPair,
} from "../wire/iscsi/text.ts";

/** What was agreed, or the standard's default. Lengths in bytes, times in seconds as in the keys. */
export interface SessionParameters {
  headerDigest: string;
  dataDigest: string;
  maxConnections: number;
  initialR2t: boolean;
  immediateData: boolean;
  maxBurstLength: number;
  firstBurstLength: number;
  defaultTime2Wait: number;
  defaultTime2Retain: number;
  maxOutstandingR2t: number;
  dataPduInOrder: boolean;
  dataSequenceInOrder: boolean;
  errorRecoveryLevel: number;
  taskReporting: string;
  protocolLevel: number;
  /** The longest data segment the peer takes. */
  peerMaxRecvDataSegmentLength: number;
  /** The longest data segment we said that we take. */
  ownMaxRecvDataSegmentLength: number;
}

/** RFC 7143 §13: what holds when a key was not negotiated. */
export function defaultParameters(): SessionParameters {
  return {
    headerDigest: "None",
    dataDigest: "None",
    maxConnections: 1,
    initialR2t: true,
    immediateData: true,
    maxBurstLength: 262_144,
    firstBurstLength: 65_536,
    defaultTime2Wait: 2,
    defaultTime2Retain: 20,
    maxOutstandingR2t: 1,
    dataPduInOrder: true,
    dataSequenceInOrder: true,
    errorRecoveryLevel: 0,
    taskReporting: "RFC3720",
    protocolLevel: 1,
    peerMaxRecvDataSegmentLength: 8192,
    ownMaxRecvDataSegmentLength: 8192,
  };
}

/** What one end would like: a bound, a choice, or a list in the order of preference. */
export interface Wishes {
  readonly headerDigest: readonly string[];
  readonly dataDigest: readonly string[];
  readonly maxConnections: number;
  readonly initialR2t: boolean;
  readonly immediateData: boolean;
  readonly maxBurstLength: number;
  readonly firstBurstLength: number;
  readonly defaultTime2Wait: number;
  readonly defaultTime2Retain: number;
  readonly maxOutstandingR2t: number;
  readonly dataPduInOrder: boolean;
  readonly dataSequenceInOrder: boolean;
  readonly errorRecoveryLevel: number;
  readonly taskReporting: readonly string[];
  readonly protocolLevel: number;
  readonly maxRecvDataSegmentLength: number;
}

const lengthMax = 2 ** 24 - 1;

/** What our target asks for. Both digests are taken when the initiator puts them first. */
export const targetWishes: Wishes = Object.freeze({
  headerDigest: ["CRC32C", "None"],
  dataDigest: ["CRC32C", "None"],
  maxConnections: 1,
  initialR2t: false,
  immediateData: true,
  maxBurstLength: Math.min(limits.burstBytesMax, lengthMax),
  firstBurstLength: limits.firstBurstBytesMax,
  defaultTime2Wait: 0,
  defaultTime2Retain: 0,
  maxOutstandingR2t: limits.outstandingR2tMax,
  dataPduInOrder: true,
  dataSequenceInOrder: true,
  errorRecoveryLevel: 0,
  taskReporting: ["RFC3720"],
  protocolLevel: 1,
  maxRecvDataSegmentLength: limits.receiveDataSegmentBytesMax,
});

/** What our initiator end asks for: no digests unless the caller wants them, everything else as large as we take it. */
export const initiatorWishes: Wishes = Object.freeze({
  ...targetWishes,
  headerDigest: ["None", "CRC32C"],
  dataDigest: ["None", "CRC32C"],
});

export type Role = "initiator" | "target";
/** Where a text is exchanged: a login stage (RFC 7143 §6.3) or full feature phase (§6.4). */
export type Phase = "security" | "operational" | "fullFeature";

/** Use of a key (RFC 7143 §13): IO, LO, ALL, FFPO; `security` for keys of the security stage alone (SNO). */
type Use = "initialOnly" | "leadingOnly" | "all" | "fullFeatureOnly" | "security";

interface Rule {
  readonly key: string;
  readonly use: Use;
  /** Who may declare or offer it. */
  readonly sender: Role | "both";
  /** May come in the security stage too. */
  readonly anyStage?: boolean;
  /** No meaning in a discovery session: answered Irrelevant. */
  readonly normalOnly?: boolean;
  readonly kind:
    | { readonly type: "declared" }
    | { readonly type: "declaredNumber"; readonly min: number; readonly max: number }
    | {
      readonly type: "number";
      readonly min: number;
      readonly max: number;
      readonly result: "min" | "max";
      readonly parameter: NumberParameter;
    }
    | { readonly type: "boolean"; readonly result: "and" | "or"; readonly parameter: BooleanParameter }
    | { readonly type: "list"; readonly parameter: ListParameter }
    /** Decided outside: AuthMethod and its keys (§12), SendTargets. */
    | { readonly type: "delegated" }
    /** Obsolete (§13.25): must not be answered NotUnderstood. */
    | { readonly type: "obsolete"; readonly answer: string };
}

type NumberParameter =
  | "maxConnections"
  | "maxBurstLength"
  | "firstBurstLength"
  | "defaultTime2Wait"
  | "defaultTime2Retain"
  | "maxOutstandingR2t"
  | "errorRecoveryLevel"
  | "protocolLevel";
type BooleanParameter = "initialR2t" | "immediateData" | "dataPduInOrder" | "dataSequenceInOrder";
type ListParameter = "headerDigest" | "dataDigest" | "taskReporting";

const declared = { type: "declared" } as const;
const delegated = { type: "delegated" } as const;

function number(parameter: NumberParameter, result: "min" | "max", min: number, max: number): Rule["kind"] {
  return { type: "number", parameter, result, min, max };
}

function boolean(parameter: BooleanParameter, result: "and" | "or"): Rule["kind"] {
  return { type: "boolean", parameter, result };
}

function normal(key: string, kind: Rule["kind"]): Rule {
  return { key, use: "leadingOnly", sender: "both", normalOnly: true, kind };
}

function security(key: string): Rule {
  return { key, use: "security", sender: "both", kind: delegated };
}

/** RFC 7143 §13 and §12, in the order of the sections. An initiator offers in this order. */
const rules: readonly Rule[] = Object.freeze([
  {
    key: "HeaderDigest",
    use: "initialOnly",
    sender: "both",
    kind: { type: "list", parameter: "headerDigest" },
  },
  { key: "DataDigest", use: "initialOnly", sender: "both", kind: { type: "list", parameter: "dataDigest" } },
  normal("MaxConnections", number("maxConnections", "min", 1, 65_535)),
  { key: "SendTargets", use: "fullFeatureOnly", sender: "initiator", kind: delegated },
  { key: "TargetName", use: "initialOnly", sender: "both", anyStage: true, kind: declared },
  { key: "InitiatorName", use: "initialOnly", sender: "initiator", anyStage: true, kind: declared },
  { key: "TargetAlias", use: "all", sender: "target", anyStage: true, kind: declared },
  { key: "InitiatorAlias", use: "all", sender: "initiator", anyStage: true, kind: declared },
  { key: "TargetAddress", use: "all", sender: "target", anyStage: true, kind: declared },
  { key: "TargetPortalGroupTag", use: "initialOnly", sender: "target", anyStage: true, kind: declared },
  normal("InitialR2T", boolean("initialR2t", "or")),
  normal("ImmediateData", boolean("immediateData", "and")),
  {
    key: "MaxRecvDataSegmentLength",
    use: "all",
    sender: "both",
    anyStage: true,
    kind: { type: "declaredNumber", min: 512, max: lengthMax },
  },
  normal("MaxBurstLength", number("maxBurstLength", "min", 512, lengthMax)),
  normal("FirstBurstLength", number("firstBurstLength", "min", 512, lengthMax)),
  {
    key: "DefaultTime2Wait",
    use: "leadingOnly",
    sender: "both",
    kind: number("defaultTime2Wait", "max", 0, 3600),
  },
  {
    key: "DefaultTime2Retain",
    use: "leadingOnly",
    sender: "both",
    kind: number("defaultTime2Retain", "min", 0, 3600),
  },
  normal("MaxOutstandingR2T", number("maxOutstandingR2t", "min", 1, 65_535)),
  normal("DataPDUInOrder", boolean("dataPduInOrder", "or")),
  normal("DataSequenceInOrder", boolean("dataSequenceInOrder", "or")),
  {
    key: "ErrorRecoveryLevel",
    use: "leadingOnly",
    sender: "both",
    kind: number("errorRecoveryLevel", "min", 0, 2),
  },
  { key: "SessionType", use: "leadingOnly", sender: "initiator", anyStage: true, kind: declared },
  normal("TaskReporting", { type: "list", parameter: "taskReporting" }),
  normal("iSCSIProtocolLevel", number("protocolLevel", "min", 0, 31)),
  { key: "X#NodeArchitecture", use: "leadingOnly", sender: "both", anyStage: true, kind: declared },
  {
    key: "IFMarker",
    use: "initialOnly",
    sender: "both",
    kind: { type: "obsolete", answer: "No" },
  },
  {
    key: "OFMarker",
    use: "initialOnly",
    sender: "both",
    kind: { type: "obsolete", answer: "No" },
  },
  {
    key: "IFMarkInt",
    use: "initialOnly",
    sender: "both",
    kind: { type: "obsolete", answer: textAnswer.reject },
  },
  {
    key: "OFMarkInt",
    use: "initialOnly",
    sender: "both",
    kind: { type: "obsolete", answer: textAnswer.reject },
  },
  security("AuthMethod"),
  security("CHAP_A"),
  security("CHAP_I"),
  security("CHAP_C"),
  security("CHAP_N"),
  security("CHAP_R"),
]);

const ruleOf: ReadonlyMap<string, Rule> = new Map(rules.map((rule) => [rule.key, rule]));

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
