// A PERSISTENT RESERVE OUT as it comes (CDB and parameter list, SPC-4 §6.16) turned into a request of the state machine.

import { PersistentReserveOut } from "../wire/scsi/cdb.ts";
import {
  getReservationKey,
  PersistentReserveOutAction as Action,
  PersistentReserveOutParameters as Parameters,
  persistentReserveOutParametersBytes,
  RegisterAndMoveParameters,
  registerAndMoveParametersBytes,
  transportIdListLength,
} from "../wire/scsi/persistent_reserve.ts";
import { type IscsiTransportId, parseTransportIds } from "../wire/scsi/transport_id.ts";
import type { NexusName, PersistentReserveOutRequest } from "./persistent_reservation_state.ts";

/** All its service actions have one shape. */
const Cdb = PersistentReserveOut[0]!.fields;

export type ParametersOutcome =
  | { readonly kind: "request"; readonly request: PersistentReserveOutRequest }
  | { readonly kind: "invalidFieldInParameterList" | "parameterListLengthError" };

/** What the logical unit knows of ports. */
export interface KnownPorts {
  /** Nexuses logged in at the moment. */
  readonly nexuses: readonly NexusName[];
  readonly relativeTargetPorts: readonly number[];
}

/** True when a PERSISTENT RESERVE OUT with this parameter list length can be right at all. */
export function isParameterListLength(action: number, length: number, lengthMax: number): boolean {
  // A list of TransportIDs makes a REGISTER longer; with REGISTER AND MOVE there is always one.
  if (action === Action.register) return length >= persistentReserveOutParametersBytes && length <= lengthMax;
  if (action === Action.registerAndMove) {
    return length > registerAndMoveParametersBytes && length <= lengthMax;
  }
  return length === persistentReserveOutParametersBytes;
}

/** `view` and `bytes` are of one buffer; the list is `length` bytes from its start. */
export function parseParameters(
  cdb: DataView,
  nexus: NexusName,
  view: DataView,
  bytes: Uint8Array,
  length: number,
  known: KnownPorts,
): ParametersOutcome {
  const action = Cdb.serviceAction.get(cdb, 0);
  const base = {
    nexus: nameOf(nexus),
    action,
    scope: Cdb.scope.get(cdb, 0),
    type: Cdb.type.get(cdb, 0),
    key: getReservationKey(view, 0),
    actionKey: getReservationKey(view, 8),
  };
  if (action === Action.registerAndMove) return move(base, view, bytes, length, known);

  const registers = action === Action.register || action === Action.registerAndIgnoreExistingKey;
  const alsoRegister: NexusName[] = [];
  const specifies = Parameters.specifyInitiatorPorts.get(view, 0) === 1;
  if (specifies) {
    // §6.16.3: SPEC_I_PT belongs to REGISTER alone.
    if (action !== Action.register) return { kind: "invalidFieldInParameterList" };
    const start = persistentReserveOutParametersBytes + 4;
    if (length < start) return { kind: "parameterListLengthError" };
    const end = start + transportIdListLength.get(view, 0);
    if (end > length) return { kind: "parameterListLengthError" };
    const ids = parseTransportIds(bytes, start, end);
    if (ids === null) return { kind: "invalidFieldInParameterList" };
    for (const id of ids) {
      const named = nexusesOf(id, nexus.relativeTargetPort, known);
      if (named.length === 0) return { kind: "invalidFieldInParameterList" };
      alsoRegister.push(...named);
    }
  } else if (length !== persistentReserveOutParametersBytes) return { kind: "parameterListLengthError" };

  return {
    kind: "request",
    request: {
      ...base,
      persist: registers && Parameters.activatePersistThroughPowerLoss.get(view, 0) === 1,
      targetPorts: registers && Parameters.allTargetPorts.get(view, 0) === 1
        ? known.relativeTargetPorts
        : null,
      alsoRegister: specifies ? alsoRegister : null,
      destination: null,
      unregister: false,
    },
  };
}

type Base = Pick<PersistentReserveOutRequest, "nexus" | "action" | "scope" | "type" | "key" | "actionKey">;

function move(
  base: Base,
  view: DataView,
  bytes: Uint8Array,
  length: number,
  known: KnownPorts,
): ParametersOutcome {
  const fields = RegisterAndMoveParameters;
  const start = registerAndMoveParametersBytes;
  const end = start + fields.transportIdLength.get(view, 0);
  if (end > length) return { kind: "parameterListLengthError" };
  const ids = parseTransportIds(bytes, start, end);
  const id = ids?.length === 1 ? ids[0]! : null;
  const relativeTargetPort = fields.relativeTargetPort.get(view, 0);
  if (id === null || id.isid === null || !known.relativeTargetPorts.includes(relativeTargetPort)) {
    return { kind: "invalidFieldInParameterList" };
  }
  return {
    kind: "request",
    request: {
      ...base,
      persist: fields.activatePersistThroughPowerLoss.get(view, 0) === 1,
      targetPorts: null,
      alsoRegister: null,
      destination: { initiatorName: id.initiatorName, isid: id.isid, relativeTargetPort },
      unregister: fields.unregister.get(view, 0) === 1,
    },
  };
}

/** A device's name alone means all of its ports that are known here (SPC-4 §7.6.4.6). */
function nexusesOf(id: IscsiTransportId, relativeTargetPort: number, known: KnownPorts): NexusName[] {
  if (id.isid !== null) return [{ initiatorName: id.initiatorName, isid: id.isid, relativeTargetPort }];
  const isids = new Set<number>();
  for (const nexus of known.nexuses) if (nexus.initiatorName === id.initiatorName) isids.add(nexus.isid);
  return [...isids].map((isid) => ({ initiatorName: id.initiatorName, isid, relativeTargetPort }));
}

/** Only the name: a Nexus carries the session with it, which nobody shall keep. */
function nameOf(nexus: NexusName): NexusName {
  return {
    initiatorName: nexus.initiatorName,
    isid: nexus.isid,
    relativeTargetPort: nexus.relativeTargetPort,
  };
}
