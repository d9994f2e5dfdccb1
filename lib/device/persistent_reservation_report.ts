// The data of PERSISTENT RESERVE IN (SPC-4 §6.15), made whole; who sends it cuts it at the allocation length.

import {
  FullStatusDescriptor,
  fullStatusDescriptorBytes,
  logicalUnitScope,
  noReservationKey,
  persistentReservationTypeMask,
  PersistentReserveInAction as Action,
  PersistentReserveInHeader,
  persistentReserveInHeaderBytes,
  ReservationCapabilities,
  reservationCapabilitiesBytes,
  ReservationDescriptor,
  reservationDescriptorBytes,
  setReservationKey,
} from "../wire/scsi/persistent_reserve.ts";
import { encodeTransportId } from "../wire/scsi/transport_id.ts";
import {
  findRegistration,
  isHolder,
  type PersistentReservationState,
} from "./persistent_reservation_state.ts";

/** Null: there is no such service action. */
export function persistentReserveIn(
  state: PersistentReservationState,
  serviceAction: number,
): Uint8Array | null {
  switch (serviceAction) {
    case Action.readKeys:
      return readKeys(state);
    case Action.readReservation:
      return readReservation(state);
    case Action.reportCapabilities:
      return reportCapabilities(state);
    case Action.readFullStatus:
      return readFullStatus(state);
    default:
      return null;
  }
}

function withHeader(state: PersistentReservationState, additionalBytes: number): DataView<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(persistentReserveInHeaderBytes + additionalBytes));
  PersistentReserveInHeader.generation.set(view, 0, state.generation);
  PersistentReserveInHeader.additionalLength.set(view, 0, additionalBytes);
  return view;
}

/** §6.15.2 */
function readKeys(state: PersistentReservationState): Uint8Array {
  const view = withHeader(state, 8 * state.registrations.length);
  state.registrations.forEach(({ key }, i) =>
    setReservationKey(view, persistentReserveInHeaderBytes + 8 * i, key)
  );
  return new Uint8Array(view.buffer);
}

/** §6.15.3: the key is zero for the all registrants types. */
function readReservation(state: PersistentReservationState): Uint8Array {
  const reservation = state.reservation;
  if (reservation === null) return new Uint8Array(withHeader(state, 0).buffer);
  const view = withHeader(state, reservationDescriptorBytes);
  const at = persistentReserveInHeaderBytes;
  const holder = reservation.holder === null ? null : findRegistration(state, reservation.holder);
  setReservationKey(view, at, holder?.key ?? noReservationKey);
  ReservationDescriptor.scope.set(view, at, logicalUnitScope);
  ReservationDescriptor.type.set(view, at, reservation.type);
  return new Uint8Array(view.buffer);
}

/** All of MODE SENSE, READ DEFECT DATA and their like pass every type of reservation (table 216). */
const allowCommandsAll = 0b100;

/** §6.15.4 */
function reportCapabilities(state: PersistentReservationState): Uint8Array {
  const view = new DataView(new ArrayBuffer(reservationCapabilitiesBytes));
  const fields = ReservationCapabilities;
  fields.length.set(view, 0, reservationCapabilitiesBytes);
  fields.specifyInitiatorPorts.set(view, 0, 1);
  fields.allTargetPorts.set(view, 0, 1);
  fields.persistThroughPowerLoss.set(view, 0, 1);
  fields.typeMaskValid.set(view, 0, 1);
  fields.allowCommands.set(view, 0, allowCommandsAll);
  fields.persistThroughPowerLossActivated.set(view, 0, state.persist ? 1 : 0);
  fields.typeMask.set(view, 0, persistentReservationTypeMask);
  return new Uint8Array(view.buffer);
}

/** §6.15.5 */
function readFullStatus(state: PersistentReservationState): Uint8Array {
  const ids = state.registrations.map(({ nexus }) => encodeTransportId(nexus));
  const additional = ids.reduce((sum, id) => sum + fullStatusDescriptorBytes + id.length, 0);
  const view = withHeader(state, additional);
  const bytes = new Uint8Array(view.buffer);
  let at = persistentReserveInHeaderBytes;
  state.registrations.forEach((registration, i) => {
    const id = ids[i]!;
    const fields = FullStatusDescriptor;
    setReservationKey(view, at, registration.key);
    if (state.reservation !== null && isHolder(state, registration.nexus)) {
      fields.holder.set(view, at, 1);
      fields.scope.set(view, at, logicalUnitScope);
      fields.type.set(view, at, state.reservation.type);
    }
    fields.relativeTargetPort.set(view, at, registration.nexus.relativeTargetPort);
    fields.additionalDescriptorLength.set(view, at, id.length);
    bytes.set(id, at + fullStatusDescriptorBytes);
    at += fullStatusDescriptorBytes + id.length;
  });
  return bytes;
}
