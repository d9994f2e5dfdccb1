// What is wrong with a command that came back, in words by which failures are counted; null for one that did its work.

import type { InitiatorCommand } from "../../session/initiator/mod.ts";
import { DescriptorSense, FixedSense, SenseKey } from "../../wire/scsi/sense.ts";

/** SAM-5 §5.3.1. */
const statusNames = new Map([
  [0x02, "CHECK CONDITION"],
  [0x08, "BUSY"],
  [0x18, "RESERVATION CONFLICT"],
  [0x28, "TASK SET FULL"],
  [0x30, "ACA ACTIVE"],
  [0x40, "TASK ABORTED"],
]);

type Judged = Pick<
  InitiatorCommand,
  "outcome" | "reason" | "response" | "status" | "sense" | "dataIn" | "dataInLength" | "dataInReceived"
>;

export function failureOf(command: Judged): string | null {
  if (command.outcome !== "completed") return `${command.outcome}: ${command.reason}`;
  if (command.response !== 0) return `iSCSI response ${hex(command.response)}`;
  if (command.status !== 0) return statusText(command.status, command.sense);
  const short = command.dataIn !== null && command.dataInReceived !== command.dataInLength;
  return short ? `GOOD with ${command.dataInReceived} of ${command.dataInLength} bytes` : null;
}

/** The unit tells of something that has happened (SAM-5 §5.14); the command was not carried out, the next one is. */
export function isUnitAttention(command: Pick<InitiatorCommand, "status" | "sense">): boolean {
  return command.status === 0x02 && senseOf(command.sense)?.key === SenseKey.unitAttention;
}

function statusText(status: number, sense: Uint8Array): string {
  const name = statusNames.get(status) ?? `status ${hex(status)}`;
  const told = senseOf(sense);
  if (told === null) return name;
  return `${name}, ${keyText(told.key)}, ${hex(told.asc)}/${hex(told.ascq)}`;
}

function senseOf(sense: Uint8Array): { key: number; asc: number; ascq: number } | null {
  if (sense.length < 4) return null;
  const view = new DataView(sense.buffer, sense.byteOffset, sense.length);
  if (DescriptorSense.responseCode.get(view, 0) >= 0x72) {
    const fields = DescriptorSense;
    return {
      key: fields.senseKey.get(view, 0),
      asc: fields.additionalSenseCode.get(view, 0),
      ascq: fields.additionalSenseCodeQualifier.get(view, 0),
    };
  }
  if (sense.length < 14) return null;
  const fields = FixedSense;
  return {
    key: fields.senseKey.get(view, 0),
    asc: fields.additionalSenseCode.get(view, 0),
    ascq: fields.additionalSenseCodeQualifier.get(view, 0),
  };
}

/** "MEDIUM ERROR" of mediumError. */
function keyText(key: number): string {
  const name = Object.entries(SenseKey).find(([, value]) => value === key)?.[0];
  return name === undefined ? `sense key ${hex(key)}` : name.replace(/[A-Z]/g, " $&").toUpperCase();
}

function hex(value: number): string {
  return `${value.toString(16).toUpperCase().padStart(2, "0")}h`;
}
