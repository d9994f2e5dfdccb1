// A switch device over a kernel that is only its answers.

import { DeviceMapper } from "../../../lib/roles/agent/device_mapper.ts";
import { OpenIscsi } from "../../../lib/roles/agent/open_iscsi.ts";
import { SwitchDevice } from "../../../lib/roles/agent/switch_device.ts";
import type { WantedDevice } from "../../../lib/roles/agent/wanted_device.ts";
import { ManualClock } from "../manual_clock.ts";
import { FakeKernel } from "./fake_kernel.ts";

export const MiB = 2 ** 20;
const target = "iqn.2026-11.net.plimsoll.demo:vol0";
export const identifier = new Uint8Array(16).fill(0xa7);
export const other = new Uint8Array(16).fill(0x3c);
export const secret = "0123456789abcdef0123456789abcdef";
export const [alpha, beta, gamma] = ["10.0.0.1:3260", "10.0.0.2:3260", "10.0.0.3:3260"] as const;
export const device = "plimsoll-vol0";
const names = ["alpha", "beta", "gamma"] as const;
/** Of the members, in this order. */
const letters = "abc";
const portalOf = { alpha, beta, gamma };

/** Pages with homes at these members: "aab" */
export function wanted(
  homes: string,
  options: Partial<WantedDevice> = {},
  down: readonly string[] = [],
): WantedDevice {
  const indexes = Uint8Array.from(homes, (letter) => letters.indexOf(letter));
  return {
    identifier,
    epoch: 7,
    sizeBytes: homes.length * MiB,
    pageBytes: MiB,
    writeCache: false,
    writeProtected: false,
    homes: indexes,
    members: names.map((name, i) => {
      const pages = indexes.filter((home) => home === i).length;
      const up = !down.includes(name);
      return { name, up, portals: up && pages > 0 ? [portalOf[name]] : [], pages };
    }),
    ...options,
  };
}

export class Scene {
  readonly kernel = new FakeKernel();
  readonly clock = new ManualClock();
  readonly log: string[] = [];
  device = this.#agent();

  constructor(pages = 6) {
    for (const portal of [alpha, beta, gamma]) {
      const wwid = `t10.PLIMSOLL${identifier.toHex()}`;
      this.kernel.portals.set(portal, { wwid, sectors: pages * MiB / 512, writeThrough: true, up: true });
    }
  }

  /** The process has been killed, and another one begins. */
  again(): void {
    this.device = this.#agent();
  }

  #agent(): SwitchDevice {
    const { kernel: system, clock } = this;
    const at = (level: string) => (message: string, fields: unknown = {}) => {
      this.log.push(`${level} ${message} ${JSON.stringify(fields)}`);
    };
    const identity = (user: string) => ({ user, secret: new TextEncoder().encode(secret) });
    return new SwitchDevice({
      clock,
      log: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") },
      system,
      mapper: new DeviceMapper(system),
      iscsi: new OpenIscsi({ system, clock, initiatorName: "iqn.host", interfaceName: "plimsoll-1" }),
      volume: "vol0",
      target,
      proofs: { chap: identity("proxy-initiator"), mutual: identity("proxy-target") },
    });
  }

  /** Lets commands end, and so much time pass in small steps. */
  async pass(ms = 0): Promise<void> {
    for (let passed = 0; passed <= ms; passed += 500) {
      await new Promise((done) => setTimeout(done, 0)); // all that the kernel does is done by then
      if (passed < ms) this.clock.advance(500);
    }
  }

  async want(to: WantedDevice): Promise<void> {
    this.device.want(to);
    await this.pass();
  }

  async stop(keep: boolean): Promise<boolean> {
    const stopping = this.device.stop(keep);
    await this.pass(10_000);
    return await stopping;
  }

  /** By region: the letter of the member that a request goes to. */
  goes(): string {
    const { kernel } = this;
    return Array.from(kernel.maps.get(device)!.regions, (_, region) => {
      const portal = kernel.goes(device, region);
      const member = names.findIndex((name) => portalOf[name] === portal);
      return letters[member] ?? ` ${portal} `;
    }).join("");
  }

  warnings(pattern: RegExp): number {
    return this.log.filter((line) => pattern.test(line)).length;
  }
}
