// Persistent reservations of a volume in the group's metadata.

import type { ReservationStore } from "../../device/logical_unit.ts";
import type { Metadata } from "../../meta/metadata.ts";
import { keys } from "../../meta/records.ts";

export function reservationStore(metadata: Metadata, image: number): ReservationStore {
  const key = keys.reservation(image);
  return {
    async load() {
      return (await metadata.get(key))?.value ?? null;
    },
    async save(state) {
      await metadata.commit([], [
        state === null ? { kind: "delete", key } : { kind: "put", key, value: state },
      ]);
    },
  };
}
