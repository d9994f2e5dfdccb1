// What changes of a unit mean to one nexus: unit attentions, and the end of its tasks. Pure. `changes` null: more has
// happened than the record still tells, which is to the nexus as if the unit had been reset.

import { Sense, type SenseData } from "../wire/scsi/sense.ts";
import { type NexusName, sameNexus } from "./persistent_reservation_state.ts";
import type { ChangeEvent, UnitChange } from "./unit_record.ts";

/**
 * SAM-5 §6.3.3 has a unit attention of a reset for every nexus. The one that asked is spared when it is alone: the response
 * has told it, and nobody else's commands were ended.
 */
export const senseOf: Readonly<Record<ChangeEvent, SenseData>> = {
  powerOn: Sense.powerOnReset,
  logicalUnitReset: Sense.busDeviceReset,
  targetReset: Sense.powerOnReset,
  coldReset: Sense.powerOnReset,
  modes: Sense.modeParametersChanged,
};

/** Everybody's tasks end, and what a power on makes of the unit's state it is. */
export function isReset(event: ChangeEvent | null): boolean {
  return event !== null && event !== "modes";
}

/** `alone`: no other nexus is logged in at this member. */
export function attentionsOf(
  nexus: NexusName,
  changes: readonly UnitChange[] | null,
  alone: boolean,
): SenseData[] {
  if (changes === null) return [Sense.powerOnReset];
  const isIn = (names: readonly NexusName[]) => names.some((name) => sameNexus(name, nexus));
  return changes.flatMap(({ attentions, event, by }) => {
    const out: SenseData[] = [];
    if (event !== null && !(by !== null && sameNexus(by, nexus) && (alone || event === "modes"))) {
      out.push(senseOf[event]);
    }
    if (isIn(attentions.reservationsPreempted)) out.push(Sense.reservationsPreempted);
    if (isIn(attentions.registrationsPreempted)) out.push(Sense.registrationsPreempted);
    if (isIn(attentions.reservationsReleased)) out.push(Sense.reservationsReleased);
    return out;
  });
}

export function losesTasks(nexus: NexusName, changes: readonly UnitChange[] | null): boolean {
  if (changes === null) return true;
  return changes.some(({ abort, event }) => isReset(event) || abort.some((name) => sameNexus(name, nexus)));
}
