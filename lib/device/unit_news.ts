// What changes of a unit mean to one nexus: unit attentions, and the end of its tasks. Pure. `changes` null: more has
// happened than the record still tells, which is to the nexus as if the unit had been reset.

import { Sense, type SenseData } from "../wire/scsi/sense.ts";
import { type NexusName, sameNexus } from "./persistent_reservation_state.ts";
import type { UnitChange } from "./unit_record.ts";

export function attentionsOf(nexus: NexusName, changes: readonly UnitChange[] | null): SenseData[] {
  if (changes === null) return [Sense.powerOnReset];
  const isIn = (names: readonly NexusName[]) => names.some((name) => sameNexus(name, nexus));
  return changes.flatMap(({ attentions, event }) => {
    const out: SenseData[] = [];
    if (event === "powerOn") out.push(Sense.powerOnReset);
    if (isIn(attentions.reservationsPreempted)) out.push(Sense.reservationsPreempted);
    if (isIn(attentions.registrationsPreempted)) out.push(Sense.registrationsPreempted);
    if (isIn(attentions.reservationsReleased)) out.push(Sense.reservationsReleased);
    return out;
  });
}

export function losesTasks(nexus: NexusName, changes: readonly UnitChange[] | null): boolean {
  if (changes === null) return true;
  return changes.some(({ abort, event }) =>
    event === "powerOn" || abort.some((name) => sameNexus(name, nexus))
  );
}
