// The group's address on an interface of this machine: the kernel has it for a bounded time, which its holder extends, so that
// a process that is dead or stands still loses it without having to do anything.

import type { Clock } from "../../base/clock.ts";
import type { FloatingAddress } from "../../base/floating_address.ts";
import { missingCapabilities } from "./capabilities.ts";
import { type Interface, InterfaceAddresses, samePrefix } from "./interface_addresses.ts";
import { libc, libcMissing } from "./libc.ts";
import { announcementFrames, claimant, etherTypeOf, questionFrame } from "./neighbour_frames.ts";
import { PacketSocket } from "./packet_socket.ts";
import { rawAddress } from "./socket_address.ts";

/** Questions, and how long an answer to the last is waited for: neighbours in one network answer within a millisecond. */
const questions = 3;
const questionMs = 100;
const listenMs = 20;

interface Place {
  readonly interface: Interface;
  readonly link: Uint8Array;
}

export class SystemFloatingAddress implements FloatingAddress {
  readonly #address: Uint8Array;
  readonly #portals: readonly Uint8Array[];
  /** Where it is set; null: it is not. */
  #setOn: Interface | null = null;
  /** Until when the kernel keeps it: what is there later is another process's. */
  #untilMs = -Infinity;

  /** `portals`: this member's own addresses, one of which must be in the same network. */
  constructor(readonly hostname: string, portals: readonly string[], private readonly clock: Clock) {
    this.#address = libc() === null ? new Uint8Array() : addressBytes(hostname);
    this.#portals = libc() === null ? [] : portals.map(addressBytes);
  }

  problem(): string | null {
    if (libc() === null) return `The C library cannot be called: ${libcMissing()}.`;
    const missing = missingCapabilities();
    if (missing.length > 0) return missing.join(" ");
    try {
      const place = this.#place();
      return typeof place === "string" ? place : null;
    } catch (error) {
      return `${(error as Error).message}.`;
    }
  }

  async askForOthers(): Promise<string | null> {
    const place = this.#place();
    if (typeof place === "string") throw new Error(place);
    const { link } = place;
    const socket = new PacketSocket(place.interface.index, etherTypeOf(this.#address));
    try {
      for (let i = 0; i < questions; i++) {
        socket.send(questionFrame(link, this.#address));
        for (let ms = 0; ms < questionMs; ms += listenMs) {
          await new Promise<void>((resolve) => this.clock.after(listenMs, resolve));
          const other = socket.find((frame) => claimant(frame, link, this.#address));
          if (other !== null) return [...other].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
        }
      }
      return null;
    } finally {
      socket.close();
    }
  }

  set(forMs: number): void {
    const seconds = Math.floor(forMs / 1000);
    if (seconds < 1) return;
    const place = this.#place();
    if (typeof place === "string") throw new Error(place);
    if (this.#setOn !== null && this.#setOn.index !== place.interface.index) this.remove();
    using table = new InterfaceAddresses();
    table.set(place.interface.index, this.#address, seconds);
    this.#setOn = place.interface;
    this.#untilMs = this.clock.nowMs() + seconds * 1000;
  }

  remove(): void {
    const setOn = this.#setOn;
    this.#setOn = null;
    if (setOn === null || this.clock.nowMs() >= this.#untilMs) return;
    using table = new InterfaceAddresses();
    table.remove(setOn.index, this.#address);
  }

  announce(): void {
    const place = this.#place();
    if (typeof place === "string") throw new Error(place);
    const socket = new PacketSocket(place.interface.index, etherTypeOf(this.#address));
    try {
      for (const frame of announcementFrames(place.link, this.#address)) socket.send(frame);
    } finally {
      socket.close();
    }
  }

  /** The interface with a portal in whose network the address is; a string says why there is none. */
  #place(): Place | string {
    using table = new InterfaceAddresses();
    const addresses = table.addresses();
    const interfaces = table.interfaces();
    const nameOf = (index: number) => interfaces.find((one) => one.index === index)?.name ?? "?";
    const foreign = addresses.find(({ address, permanent }) =>
      permanent && samePrefix(address, this.#address, 128)
    );
    if (foreign !== undefined) {
      return `${this.hostname} is set on ${
        nameOf(foreign.interfaceIndex)
      } for good, by somebody else. Take it away there: ` +
        `ip address delete ${this.hostname}/${foreign.prefixBits} dev ${nameOf(foreign.interfaceIndex)}.`;
    }
    const near = addresses.filter(({ address, prefixBits }) =>
      prefixBits < address.length * 8 && samePrefix(address, this.#address, prefixBits)
    );
    const fitting = near.find(({ address }) =>
      this.#portals.some((portal) => samePrefix(portal, address, address.length * 8))
    );
    if (fitting === undefined) {
      return near[0] === undefined
        ? `No interface of this machine is in the network of ${this.hostname}. Bring it up, or correct [group] portal.`
        : `No portal of this member is in the network of ${this.hostname}, which clients are sent to from there. ` +
          `Give it one on ${nameOf(near[0].interfaceIndex)} in [member] portals.`;
    }
    const found = interfaces.find(({ index }) => index === fitting.interfaceIndex);
    if (found === undefined || !found.up) {
      return `Interface ${nameOf(fitting.interfaceIndex)} is down or has no carrier. Bring it up.`;
    }
    if (found.link === null) {
      return `Interface ${found.name} is no Ethernet: neighbours cannot be told of ${this.hostname}.`;
    }
    return { interface: found, link: found.link };
  }
}

function addressBytes(hostname: string): Uint8Array {
  const { bytes } = rawAddress(libc()!, { hostname, port: 0 });
  return bytes.length === 16 ? bytes.slice(4, 8) : bytes.slice(8, 24);
}
