// One volume of a host agent: a session of its own with whichever member answers, over which it learns plan and route table as
// a proxy does, and the device that is kept in step with them. The volume's data never comes through here.

import type { SocketAddress } from "../../base/network.ts";
import { parseAddress } from "../../config/address.ts";
import { Path, type PathParts } from "../../forward/mod.ts";
import { VolumeLearner } from "../proxy/volume_learner.ts";
import { SwitchDevice, type SwitchDeviceParts } from "./switch_device.ts";
import type { WantedDevice, WantedMember } from "./wanted_device.ts";

export interface AgentVolumeParts extends PathParts, Omit<SwitchDeviceParts, "volume" | "target"> {
  readonly name: string;
  readonly groupPortals: readonly SocketAddress[];
}

/** Of the session that learns: behind all that a plan has. */
const ownPort = 255;
const unknownHome = 255;

export class AgentVolume {
  readonly #parts: AgentVolumeParts;
  readonly #device: SwitchDevice;
  readonly #learner: VolumeLearner;
  readonly #path: Path;
  #last: { readonly key: string; readonly epoch: number } | null = null;

  constructor(parts: AgentVolumeParts) {
    this.#parts = parts;
    this.#device = new SwitchDevice({ ...parts, volume: parts.name, target: parts.targetName });
    const place = { member: "", initiatorPort: ownPort, addresses: parts.groupPortals, run: "" };
    this.#learner = new VolumeLearner({
      ...parts,
      anyOpen: () => this.#path.open ? this.#path : null,
      failed: () => {}, // it has been logged
      nobody: () => {}, // the path goes on trying all portals
      learned: () => Promise.resolve(this.#learned()),
      replaced: () => Promise.resolve(this.#replaced()),
    });
    const nothing = () => {};
    this.#path = new Path(place, parts, {
      loggedIn: nothing,
      opened: () => this.#learner.ask(),
      left: nothing,
      ended: nothing, // no block operation is sent
      told: () => this.#learner.ask(),
    });
  }

  start(): void {
    this.#path.start();
    this.#learner.start();
  }

  /** False: the device is in use and stays. */
  async stop(keep: boolean): Promise<boolean> {
    this.#learner.close();
    const gone = await this.#device.stop(keep);
    this.#path.close("the agent stops");
    return gone;
  }

  #replaced(): void {
    this.#last = null;
    this.#device.replaced();
  }

  #learned(): void {
    const { copy } = this.#learner;
    const { plan, volume } = copy;
    if (plan === null || volume === null || copy.pages * plan.pageBytes < plan.sizeBytes) return;
    // Other portals of the group are tried as well when the session is lost.
    const known = plan.members.flatMap(({ portals }) => portals).flatMap(addressOf);
    this.#path.place = { ...this.#path.place, addresses: [...this.#parts.groupPortals, ...known] };
    const key = JSON.stringify(plan);
    if (this.#last?.key === key && this.#last.epoch === copy.epoch) return;
    this.#last = { key, epoch: copy.epoch };
    const homes = new Uint8Array(Math.ceil(plan.sizeBytes / plan.pageBytes));
    const indexes = new Map(plan.members.map(({ name }, i) => [name, i]));
    const pages = new Array<number>(plan.members.length).fill(0);
    for (let page = 0; page < homes.length; page++) {
      const home = indexes.get(copy.homeOf(page) ?? "") ?? unknownHome;
      homes[page] = home;
      if (home !== unknownHome) pages[home]!++;
    }
    const members = plan.members.map(({ name, up, portals }, i): WantedMember => {
      const planned = plan.paths.filter(({ member }) => member === i).map(({ portal }) => portals[portal]!);
      return { name, up, portals: [...new Set(planned)], pages: pages[i]! };
    });
    const { sizeBytes, pageBytes, writeCache, writeProtected } = plan;
    const wanted: WantedDevice = {
      identifier: volume.identifier,
      ...{ sizeBytes, pageBytes, writeCache, writeProtected, members, homes },
    };
    this.#device.want(wanted);
  }
}

function addressOf(text: string): SocketAddress[] {
  const parsed = parseAddress(text);
  return parsed.kind === "address" ? [parsed.address] : [];
}
