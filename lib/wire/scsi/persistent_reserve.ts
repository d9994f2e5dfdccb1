// PERSISTENT RESERVE IN and OUT (SPC-4 §6.15, §6.16): codes and parameter data. The CDBs are in cdb.ts.

import { bit, bits, table, u16, u32, u64 } from "../field.ts";

/** SPC-4 table 209. */
export const PersistentReserveInAction = Object.freeze({
  readKeys: 0x00,
  readReservation: 0x01,
  reportCapabilities: 0x02,
  readFullStatus: 0x03,
});

/** SPC-4 table 221. */
export const PersistentReserveOutAction = Object.freeze({
  register: 0x00,
  reserve: 0x01,
  release: 0x02,
  clear: 0x03,
  preempt: 0x04,
  preemptAndAbort: 0x05,
  registerAndIgnoreExistingKey: 0x06,
  registerAndMove: 0x07,
});

/** SPC-4 table 213. */
export const PersistentReservationType = Object.freeze({
  writeExclusive: 0x1,
  exclusiveAccess: 0x3,
  writeExclusiveRegistrantsOnly: 0x5,
  exclusiveAccessRegistrantsOnly: 0x6,
  writeExclusiveAllRegistrants: 0x7,
  exclusiveAccessAllRegistrants: 0x8,
});

/** Bit n of the PERSISTENT RESERVATION TYPE MASK's two bytes, low byte first in the standard's table 217. */
export const persistentReservationTypeMask = 0xea01;

/** LU_SCOPE, the only scope there is (SPC-4 table 212). */
export const logicalUnitScope = 0;

/** SPC-4 table 223: every service action but REGISTER AND MOVE. */
export const PersistentReserveOutParameters = table({
  reservationKey: u64(0),
  serviceActionReservationKey: u64(8),
  obsolete: u32(16),
  specifyInitiatorPorts: bit(20, 3),
  allTargetPorts: bit(20, 2),
  activatePersistThroughPowerLoss: bit(20, 0),
});
export const persistentReserveOutParametersBytes = 24;
/** With SPEC_I_PT: the length of the TransportIDs is here, the first of them 4 bytes on. */
export const transportIdListLength = u32(24);

/** SPC-4 table 227: REGISTER AND MOVE. */
export const RegisterAndMoveParameters = table({
  reservationKey: u64(0),
  serviceActionReservationKey: u64(8),
  unregister: bit(17, 1),
  activatePersistThroughPowerLoss: bit(17, 0),
  relativeTargetPort: u16(18),
  transportIdLength: u32(20),
});
export const registerAndMoveParametersBytes = 24;

/** Header of READ KEYS, READ RESERVATION and READ FULL STATUS data. */
export const PersistentReserveInHeader = table({ generation: u32(0), additionalLength: u32(4) });
export const persistentReserveInHeaderBytes = 8;

/** SPC-4 table 211, relative to the header's end. */
export const ReservationDescriptor = table({
  reservationKey: u64(0),
  obsolete: u32(8),
  scope: bits(13, 4, 4),
  type: bits(13, 0, 4),
});
export const reservationDescriptorBytes = 16;

/** SPC-4 table 215. */
export const ReservationCapabilities = table({
  length: u16(0),
  replaceLostReservation: bit(2, 7),
  compatibleReservationHandling: bit(2, 4),
  specifyInitiatorPorts: bit(2, 3),
  allTargetPorts: bit(2, 2),
  persistThroughPowerLoss: bit(2, 0),
  typeMaskValid: bit(3, 7),
  allowCommands: bits(3, 4, 3),
  persistThroughPowerLossActivated: bit(3, 0),
  typeMask: u16(4),
});
export const reservationCapabilitiesBytes = 8;

/** SPC-4 table 219; the TransportID follows. */
export const FullStatusDescriptor = table({
  reservationKey: u64(0),
  allTargetPorts: bit(12, 1),
  holder: bit(12, 0),
  scope: bits(13, 4, 4),
  type: bits(13, 0, 4),
  relativeTargetPort: u16(18),
  additionalDescriptorLength: u32(20),
});
export const fullStatusDescriptorBytes = 24;

/** A reservation key as 16 hexadecimal digits: opaque, compared for equality only. */
export type ReservationKey = string;
export const noReservationKey: ReservationKey = "0000000000000000";

export function getReservationKey(view: DataView, at: number): ReservationKey {
  return word(view.getUint32(at)) + word(view.getUint32(at + 4));
}

export function setReservationKey(view: DataView, at: number, key: ReservationKey): void {
  view.setUint32(at, parseInt(key.slice(0, 8), 16));
  view.setUint32(at + 4, parseInt(key.slice(8), 16));
}

function word(value: number): string {
  return value.toString(16).padStart(8, "0");
}
