// The member's portals: listening, or waiting for an address that is not there yet (an interface that comes up late).

import type { Clock, Timer } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import {
  formatSocketAddress,
  type Listener,
  type Network,
  type SocketAddress,
  type Stream,
  type StreamHandler,
} from "../../base/network.ts";

const retryMs = 1_000;

export interface PortalState {
  readonly address: SocketAddress;
  readonly state: "listening" | "waiting";
  /** Why it waits. */
  readonly reason?: string;
}

interface Portal {
  address: SocketAddress;
  listener: Listener | null;
  reason: string;
  retry: Timer | null;
}

export class Portals {
  readonly #portals: Portal[] = [];
  #closed = false;

  /** `accept` gets the portal's configured address with every new stream. */
  constructor(
    private readonly network: Network,
    private readonly clock: Clock,
    private readonly log: Log,
    private readonly accept: (address: SocketAddress, stream: Stream) => StreamHandler | null,
  ) {}

  /**
   * Listens on `address`. Rejects when another process has the port; an address that this machine does not have
   * (yet) is tried again every second.
   */
  async open(address: SocketAddress): Promise<void> {
    const portal: Portal = { address, listener: null, reason: "", retry: null };
    const failure = await this.#listen(portal);
    if (failure === "in use") {
      throw new Error(
        `Cannot listen on portal ${formatSocketAddress(address)}: the port is in use. ` +
          `Stop the program that has it (ss -ltnp), or change [member] portals.`,
      );
    }
    this.#portals.push(portal);
  }

  states(): PortalState[] {
    return this.#portals.map(({ address, listener, reason }) =>
      listener !== null ? { address, state: "listening" } : { address, state: "waiting", reason }
    );
  }

  has(address: SocketAddress): boolean {
    return this.#portals.some((p) =>
      p.address.hostname === address.hostname && p.address.port === address.port
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const portal of this.#portals) portal.retry?.cancel();
    await Promise.all(this.#portals.map((portal) => portal.listener?.close()));
  }

  async #listen(portal: Portal): Promise<"listening" | "waiting" | "in use"> {
    const { address } = portal;
    const name = formatSocketAddress(address);
    try {
      const listener = await this.network.listen(address, (stream) => this.accept(address, stream));
      if (this.#closed) {
        await listener.close();
        return "waiting";
      }
      portal.listener = listener;
      this.log.info("portal listens", { portal: name });
      return "listening";
    } catch (error) {
      const reason = (error as Error).message;
      if (/in use/i.test(reason) && portal.reason === "") return "in use";
      if (portal.reason === "") {
        this.log.warn("portal address is not there yet; trying again every second", { portal: name, reason });
      }
      portal.reason = reason;
      if (!this.#closed) portal.retry = this.clock.after(retryMs, () => void this.#listen(portal));
      return "waiting";
    }
  }
}
