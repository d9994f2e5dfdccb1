// One volume of a host agent: a session of its own with whichever member answers, over which it learns plan and route table as
// a proxy does, and the device that is kept in step with them. The volume's data never comes through here.

import type { SocketAddress } from "../../base/network.ts";
import { parseAddress } from "../../config/address.ts";
import { Path, type PathParts } from "../../forward/mod.ts";
import type { AgentVolumeReport } from "../../mgmt/agent_control.ts";
import { askMs, VolumeLearner } from "../proxy/volume_learner.ts";
import { SwitchDevice, type SwitchDeviceParts } from "./switch_device.ts";
import type { WantedDevice, WantedMember } from "./wanted_device.ts";

export interface AgentVolumeParts extends PathParts, Omit<SwitchDeviceParts, "volume" | "target"> {
  readonly name: string;
  readonly groupPortals: readonly SocketAddress[];
}

/** Of the session that learns: behind all that a plan has. */
const ownPort = 255;
const unknownHome = 255;
/** What was learned is old when three questions in a row were not answered. */
const oldMs = 3 * askMs;

export class AgentVolume {
  readonly #parts: AgentVolumeParts;
  readonly #device: SwitchDevice;
  readonly #learner: VolumeLearner;
  readonly #path: Path;
  #last: { readonly key: string; readonly epoch: number } | null = null;
  /** When a member told last; null: none has, of this volume. */
  #learnedAtMs: number | null = null;
  /** Why the last question was not answered. */
  #trouble = "";

  constructor(parts: AgentVolumeParts) {
    this.#parts = parts;
    this.#device = new SwitchDevice({ ...parts, volume: parts.name, target: parts.targetName });
    const place = { member: "", initiatorPort: ownPort, addresses: parts.groupPortals, run: "" };
    this.#learner = new VolumeLearner({
      ...parts,
      anyOpen: () => this.#path.open ? this.#path : null,
      failed: (reason) => void (this.#trouble = reason),
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

  report(): AgentVolumeReport {
    const { clock, name } = this.#parts;
    const { plan, epoch } = this.#learner.copy;
    const device = this.#device.report();
    const agoMs = this.#learnedAtMs === null ? null : Math.round(clock.nowMs() - this.#learnedAtMs);
    const reason = (this.#path.open ? "" : this.#path.reason) || this.#trouble || "none has answered in full";
    if (plan === null || agoMs === null) {
      const problem = `No member has told of volume "${name}": ${reason}.`;
      return { name, ...device, problems: [problem, ...device.problems], learned: null };
    }
    const { sizeBytes, pageBytes, writeCache, writeProtected } = plan;
    const old = agoMs <= oldMs ? [] : [
      `No member has told of volume "${name}" for ${Math.floor(agoMs / 1000)} s: ${reason}. ` +
      "What has moved since is forwarded.",
    ];
    return {
      name,
      ...device,
      problems: [...old, ...device.problems],
      learned: { epoch, sizeBytes, pageBytes, writeCache, writeProtected, agoMs },
    };
  }

  #replaced(): void {
    this.#last = null;
    this.#learnedAtMs = null;
    this.#device.replaced();
  }

  #learned(): void {
    const { copy } = this.#learner;
    const { plan, volume } = copy;
    if (plan === null || volume === null || copy.pages * plan.pageBytes < plan.sizeBytes) return;
    this.#learnedAtMs = this.#parts.clock.nowMs();
    this.#trouble = "";
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
      epoch: copy.epoch,
      ...{ sizeBytes, pageBytes, writeCache, writeProtected, members, homes },
    };
    this.#device.want(wanted);
  }
}

function addressOf(text: string): SocketAddress[] {
  const parsed = parseAddress(text);
  return parsed.kind === "address" ? [parsed.address] : [];
}
