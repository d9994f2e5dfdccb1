// The administrator of the simulated world changes volumes while initiators use them: growth, the write cache, write protection.
// What has been answered must hold from then on, for every command that begins later.

import { called, type ChurnWorld } from "./churn.ts";
import type { SeededRandom } from "../store/store_calls.ts";
import { type Machine, pageBytes } from "./machine.ts";
import type { Volume } from "./volume.ts";

export async function tune(
  world: ChurnWorld,
  machine: Machine,
  volumes: readonly Volume[],
  random: SeededRandom,
): Promise<void> {
  while (world.stormy()) {
    await world.scheduler.sleep(random.below(300));
    if (!world.stormy()) break;
    if (!machine.steady) continue;
    const volume = random.pick(volumes);
    const what = random.below(3);
    if (what === 0) await grow(world, machine, volume);
    else if (what === 1) await setCache(world, machine, volume, random.chance(0.5));
    else {
      await protect(world, machine, volume, true);
      await world.scheduler.sleep(random.below(20));
      await protect(world, machine, volume, false);
    }
  }
  for (const volume of volumes) await protect(world, machine, volume, false);
}

/** A page more, up to what the oracle has room for. */
async function grow(world: ChurnWorld, machine: Machine, volume: Volume): Promise<void> {
  const bytes = volume.spec.bytes + volume.grownBytes + pageBytes;
  if (bytes > volume.bytesMax) return;
  const resize = () => machine.target.control.resizeVolume(volume.spec.name, bytes);
  if (!await called(world, resize)) return; // perhaps it was done: the next one asks for the same
  world.coverage.hit("volume grown");
  volume.grownBytes = bytes - volume.spec.bytes;
}

async function setCache(
  world: ChurnWorld,
  machine: Machine,
  volume: Volume,
  writeCache: boolean,
): Promise<void> {
  volume.cacheOff.begin();
  if (!await called(world, () => machine.target.control.setVolume(volume.spec.name, { writeCache }))) return;
  world.coverage.hit(`write cache ${writeCache ? "on" : "off"}`);
  volume.cacheOff.end(!writeCache);
}

/** Longer than a start with a stuck flush, and than a member waits before it makes a volume that it could not make at its start. */
const calmTriesMax = 500;

/** Taking it away again is tried until it is done. */
async function protect(world: ChurnWorld, machine: Machine, volume: Volume, on: boolean): Promise<void> {
  if (!on && volume.protection.isOff) return;
  for (let calmTries = 0;; await world.scheduler.sleep(200)) {
    if (!machine.running) continue;
    volume.protection.begin();
    const { control } = machine.target;
    let why = "no answer came";
    const set = () => control.setVolume(volume.spec.name, { writeProtected: on });
    const done = await called(world, set, (error) => why = error.message);
    if (done) {
      world.coverage.hit(`write protection ${on ? "on" : "off"}`);
      return volume.protection.end(on);
    }
    if (on) return;
    if (!world.stormy() && ++calmTries > calmTriesMax) {
      return world.problem(`${volume.spec.name} stays protected in calm weather: ${why}`);
    }
  }
}
