// An operator makes a volume beside the others, an initiator uses it for a while, and it is deleted again, over and over: slots
// of the disks change hands, and a new volume must read as zeroes whatever its slots held.

import { ControlError } from "../../lib/mgmt/control.ts";
import type { SeededRandom } from "../store/store_calls.ts";
import { anyCommand, readAll } from "./commands.ts";
import { iqnPrefix, type Machine, pageBytes, type VolumeSpec } from "./machine.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Seat } from "./seat.ts";
import { Volume } from "./volume.ts";
import type { Coverage } from "./weather.ts";

export interface ChurnWorld {
  readonly scheduler: Scheduler;
  readonly coverage: Coverage;
  readonly stormy: () => boolean;
  readonly problem: (what: string) => void;
  /** An initiator of the volume, which hears of the machine's ends from now on. */
  readonly seatAt: (machine: Machine, volume: Volume) => Seat;
}

/** What the administrator's call may take before it counts as lost with its process, milliseconds. */
const patienceMs = 40_000;

export async function churn(world: ChurnWorld, machine: Machine, random: SeededRandom): Promise<void> {
  const { scheduler, stormy } = world;
  for (let n = 0; stormy(); n++) {
    await scheduler.sleep(random.below(100));
    if (!stormy()) return;
    if (!machine.steady) continue;
    const name = `${machine.name}churn${n}`;
    const bytes = 4 * pageBytes;
    const blockBytes = random.pick([512, 4096] as const);
    const create = () => machine.target.control.createVolume({ name, sizeBytes: bytes, blockBytes });
    const made = await called(world, create);
    world.coverage.hit(made ? "volume made" : "volume not made");
    if (made) await use(world, machine, { name, bytes, writeCache: true, blockBytes }, random);
    await remove(world, machine, name);
  }
}

async function use(world: ChurnWorld, machine: Machine, spec: VolumeSpec, random: SeededRandom) {
  const volume = new Volume(spec, `${iqnPrefix}:${spec.name}`);
  const seat = world.seatAt(machine, volume);
  let left = random.below(20);
  while (left-- > 0 && world.stormy()) {
    const client = await session(world, seat);
    if (client === null) break;
    if (random.chance(0.2)) await readAll(seat, client);
    else await anyCommand(seat, client);
  }
  seat.end();
  await seat.logout();
}

/** The seat's session; null when there is none for long: the volume may not have been made after all. */
function session(world: ChurnWorld, seat: Seat) {
  return Promise.race([seat.session(), world.scheduler.sleep(20_000).then(() => null)]);
}

/** Until it is gone; in calm weather it must go. */
async function remove(world: ChurnWorld, machine: Machine, name: string): Promise<void> {
  for (let calmTries = 0;; await world.scheduler.sleep(500)) {
    if (!machine.running) continue;
    let gone = false;
    let why = "no answer came";
    const done = await called(world, () => machine.target.control.deleteVolume(name), (error) => {
      why = error.message;
      gone = error instanceof ControlError && error.kind === "notFound";
    });
    if (done || gone) return world.coverage.hit("volume deleted");
    // A disk whose flush has failed takes no more changes: the next start goes on with the deletion.
    if (!world.stormy() && why.includes("writesStopped")) return;
    if (!world.stormy() && ++calmTries > 20) {
      return world.problem(`${name} cannot be deleted in calm weather: ${why}`);
    }
  }
}

/** True: it was done. False: it failed, or the process that was asked is gone. */
export async function called(
  { scheduler }: ChurnWorld,
  call: () => Promise<unknown>,
  failed: (error: Error) => void = () => {},
): Promise<boolean> {
  const done = call().then(() => true, (error) => {
    failed(error as Error);
    return false;
  });
  return await Promise.race([done, scheduler.sleep(patienceMs).then(() => false)]);
}
