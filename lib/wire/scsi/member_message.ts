// A message of one member to another: a vendor-specific command (SPC-4 §4.2.5.1) whose data-out is the message. Answered
// GOOD, or with sense data of ours that says why it was not taken. docs/vendor-commands.md has it byte by byte.

import type { Field } from "../field.ts";
import { bits, table, u16, u32, u64 } from "../field.ts";
import type { CdbShape } from "./cdb_shape.ts";
import { shape } from "./cdb_shape.ts";

export const messageVersion = 1;

export const MemberMessage: CdbShape<{ version: Field; kind: Field; lengthBytes: Field }> = shape(
  "PLIMSOLL MEMBER MESSAGE",
  0xc2,
  16,
  { version: bits(1, 4, 4), kind: u16(2), lengthBytes: u32(4) },
);

/** Kinds of messages. Numbers are never used again. */
export const MessageKind = Object.freeze({
  /** How loaded the sender is (lib/balance/load_report.ts). */
  loadReport: 1,
  /** An initiator is about to log in, or is to be sent there (lib/balance/intent.ts). */
  intent: 2,
  /** A unit has changed: answered when it is obeyed (lib/roles/target/units.ts). */
  unitChange: 3,
  /** A client's connection is lent for one answer, and is given back (lib/wire/scsi/short_cut.ts). */
  lend: 4,
  giveBack: 5,
  /** Hot pages are to come, and as many cold ones to go back (lib/balance/page_swap.ts). */
  pageSwap: 6,
  /** A session becomes another member's, its connection included (lib/wire/scsi/session_move.ts). */
  moveHeld: 7,
  moveTake: 8,
  moveSteer: 9,
  moveEnd: 10,
  /** The process by whose portal such a session came is started anew. */
  moveKeep: 11,
  moveResume: 12,
});

/** A unit change: the image, and the number of the change. The name of the initiator-proxy that it is told for may follow. */
export const UnitChangeMessage = table({ image: u64(0), number: u64(8) });
export const unitChangeBytes = 16;
/** Qualifier of a unit change that is obeyed, by a member where nobody is logged in to the unit. */
export const unitUnused = 1;

/** Additional sense code of a message that was understood and not taken; the qualifier says why, to its kind's own list. */
export const messageRefusedCode = 0x85;
/** Qualifiers that every kind has. */
export const MessageRefusal = Object.freeze({
  /** Nobody listens to this kind here. */
  unknownKind: 0x80,
  /** Its bytes contradict themselves. */
  malformed: 0x81,
  /** The member does not take messages now. */
  notNow: 0x82,
});
