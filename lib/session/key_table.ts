// Every text key of RFC 7143 §13 (and §12) in one table: who may send it, where, what it decides, and its default.

import { limits } from "../base/limits.ts";
import { textAnswer } from "../wire/iscsi/text.ts";

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
export type Use = "initialOnly" | "leadingOnly" | "all" | "fullFeatureOnly" | "security";

export interface Rule {
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

export type NumberParameter =
  | "maxConnections"
  | "maxBurstLength"
  | "firstBurstLength"
  | "defaultTime2Wait"
  | "defaultTime2Retain"
  | "maxOutstandingR2t"
  | "errorRecoveryLevel"
  | "protocolLevel";
export type BooleanParameter = "initialR2t" | "immediateData" | "dataPduInOrder" | "dataSequenceInOrder";
export type ListParameter = "headerDigest" | "dataDigest" | "taskReporting";

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
export const rules: readonly Rule[] = Object.freeze([
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

export const ruleOf: ReadonlyMap<string, Rule> = new Map(rules.map((rule) => [rule.key, rule]));
