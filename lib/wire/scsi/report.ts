// Answers of the report commands (SPC-4 §6.33, §6.35, §6.36, §6.37).

import { bit, bits, table, u16, u32, u8 } from "../field.ts";
import type { CdbShape } from "./cdb_shape.ts";

/** Logical units of the target: number 0, or none (SELECT REPORT 01h asks for well known ones only). */
export function reportLuns(withLunZero: boolean): Uint8Array {
  const bytes = new Uint8Array(withLunZero ? 16 : 8);
  new DataView(bytes.buffer).setUint32(0, bytes.length - 8);
  return bytes;
}

/** One entry of the all-commands format (SPC-4 §6.35.2). */
export const CommandDescriptor = table({
  operationCode: u8(0),
  serviceAction: u16(2),
  timeoutsPresent: bit(5, 1),
  serviceActionValid: bit(5, 0),
  cdbLength: u16(6),
});
const commandDescriptorBytes = 8;

/** Command timeouts descriptor (SPC-4 §6.35.4). Zero: no value is given. */
export const TimeoutsDescriptor = table({
  descriptorLength: u16(0),
  nominalProcessing: u32(4),
  recommendedTimeout: u32(8),
});
const timeoutsBytes = 12;

/** The answer for one command (SPC-4 §6.35.3). */
export const OneCommand = table({ timeoutsPresent: bit(1, 7), support: bits(1, 0, 3), cdbSize: u16(2) });
export const Support = Object.freeze({ unknown: 0, notSupported: 1, standard: 3, vendor: 5 });

export function allCommands(commands: readonly CdbShape[], timeouts: boolean): Uint8Array {
  const entryBytes = commandDescriptorBytes + (timeouts ? timeoutsBytes : 0);
  const bytes = new Uint8Array(4 + commands.length * entryBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length - 4);
  commands.forEach((command, i) => {
    const at = 4 + i * entryBytes;
    CommandDescriptor.operationCode.set(view, at, command.opcode);
    CommandDescriptor.serviceAction.set(view, at, command.serviceAction ?? 0);
    CommandDescriptor.serviceActionValid.set(view, at, command.serviceAction === null ? 0 : 1);
    CommandDescriptor.timeoutsPresent.set(view, at, timeouts ? 1 : 0);
    CommandDescriptor.cdbLength.set(view, at, command.cdbBytes);
    if (timeouts) setTimeouts(view, at + commandDescriptorBytes);
  });
  return bytes;
}

/** `command` null: not supported. */
export function oneCommand(command: CdbShape | null, timeouts: boolean): Uint8Array {
  const withTimeouts = timeouts && command !== null;
  const cdbBytes = command?.cdbBytes ?? 0;
  const bytes = new Uint8Array(4 + cdbBytes + (withTimeouts ? timeoutsBytes : 0));
  const view = new DataView(bytes.buffer);
  OneCommand.timeoutsPresent.set(view, 0, withTimeouts ? 1 : 0);
  OneCommand.support.set(view, 0, command === null ? Support.notSupported : Support.standard);
  OneCommand.cdbSize.set(view, 0, cdbBytes);
  if (command !== null) bytes.set(command.usage, 4);
  if (withTimeouts) setTimeouts(view, 4 + cdbBytes);
  return bytes;
}

function setTimeouts(view: DataView, at: number): void {
  TimeoutsDescriptor.descriptorLength.set(view, at, timeoutsBytes - 2);
}

/** SPC-4 §6.36 */
export const TaskManagementSupport = table({
  abortTask: bit(0, 7),
  abortTaskSet: bit(0, 6),
  clearAca: bit(0, 5),
  clearTaskSet: bit(0, 4),
  logicalUnitReset: bit(0, 3),
  queryTask: bit(0, 2),
  queryAsynchronousEvent: bit(1, 2),
  queryTaskSet: bit(1, 1),
  iTNexusReset: bit(1, 0),
  extendedLength: u8(3),
});

export function taskManagementSupport(extended: boolean): Uint8Array {
  const bytes = new Uint8Array(extended ? 16 : 4);
  const view = new DataView(bytes.buffer);
  TaskManagementSupport.abortTask.set(view, 0, 1);
  TaskManagementSupport.abortTaskSet.set(view, 0, 1);
  TaskManagementSupport.clearTaskSet.set(view, 0, 1);
  TaskManagementSupport.logicalUnitReset.set(view, 0, 1);
  if (extended) TaskManagementSupport.extendedLength.set(view, 0, 12);
  return bytes;
}

/** Target port group descriptor (SPC-4 §6.37). */
export const TargetPortGroup = table({
  preferred: bit(0, 7),
  asymmetricAccessState: bits(0, 0, 4),
  transitioningSupported: bit(1, 7),
  offlineSupported: bit(1, 6),
  unavailableSupported: bit(1, 3),
  standbySupported: bit(1, 2),
  nonOptimizedSupported: bit(1, 1),
  optimizedSupported: bit(1, 0),
  group: u16(2),
  statusCode: u8(5),
  ports: u8(7),
});
const targetPortGroupBytes = 8;

/** ASYMMETRIC ACCESS STATE (SPC-4 §6.37), as far as groups of members have them. */
export const AccessState = Object.freeze({ activeOptimized: 0x0, unavailable: 0x3 });

export interface TargetPortGroupReport {
  readonly tag: number;
  readonly state: keyof typeof AccessState;
  readonly relativeTargetPorts: readonly number[];
}

/** `extended`: the header of parameter data format 001b. */
export function targetPortGroups(groups: readonly TargetPortGroupReport[], extended: boolean): Uint8Array {
  const headerBytes = extended ? 8 : 4;
  const body = groups.reduce((sum, g) => sum + targetPortGroupBytes + 4 * g.relativeTargetPorts.length, 0);
  const bytes = new Uint8Array(headerBytes + body);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length - 4);
  if (extended) view.setUint8(4, 0x10); // FORMAT TYPE 001b; implicit transition time 0: none is given
  let at = headerBytes;
  for (const group of groups) {
    TargetPortGroup.asymmetricAccessState.set(view, at, AccessState[group.state]);
    TargetPortGroup.optimizedSupported.set(view, at, 1);
    TargetPortGroup.unavailableSupported.set(view, at, 1);
    TargetPortGroup.group.set(view, at, group.tag);
    TargetPortGroup.ports.set(view, at, group.relativeTargetPorts.length);
    at += targetPortGroupBytes;
    for (const port of group.relativeTargetPorts) {
      view.setUint16(at + 2, port);
      at += 4;
    }
  }
  return bytes;
}
