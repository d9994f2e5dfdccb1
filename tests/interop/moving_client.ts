// A client that goes where it is sent, for tests with real processes: it follows redirects, logs out when it is asked to,
// comes back to the portal it knew first, and verifies every block that it has written. No command may be lost.

import { strict as assert } from "node:assert";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { parseAddress } from "../../lib/config/address.ts";
import { InitiatorClient, LoginError } from "../../lib/session/initiator/client.ts";
import { AsyncEvent } from "../../lib/wire/iscsi/status.ts";
import { cdb16 } from "./plain_initiator.ts";
import { pause } from "./target_process.ts";

const network = new PortableNetwork();
const blocksAtOnce = 8;
const blocksOfOne = 256;
const pageBlocks = 4 * 1024 * 1024 / 512;

export class MovingClient {
  /** Commands that were answered GOOD, and those that had to be sent again: at a move only. */
  done = 0;
  again = 0;
  /** Portals it has logged in at. */
  readonly places: string[] = [];
  #client: InitiatorClient | null = null;
  #running: Promise<void> | null = null;
  #stop = false;
  readonly #rounds = new Map<number, number>();

  constructor(
    readonly number: number,
    readonly portal: string,
    readonly targetName: string,
    /** Pages of the volume: it has blocks of its own on each. */
    readonly pages: number,
    readonly pauseMs: number,
  ) {}

  async login(): Promise<void> {
    let portal = this.portal;
    for (let hops = 0;; hops++) {
      assert.ok(hops < 4, `sent round in circles, last to ${portal}`);
      const parsed = parseAddress(portal);
      assert.ok(parsed.kind === "address");
      try {
        this.#client = await InitiatorClient.connect(network, systemClock, systemRandom, {
          portal: parsed.address,
          initiatorName: `iqn.2026-11.net.plimsoll.test:mover${this.number}`,
          targetName: this.targetName,
          isid: 0x80_0000_000100 + this.number,
        });
        this.places.push(portal);
        return;
      } catch (error) {
        if (!(error instanceof LoginError) || error.end.kind !== "redirected") throw error;
        portal = error.end.address;
      }
    }
  }

  start(): void {
    this.#running = this.#run();
    this.#running.catch(() => {}); // stop() tells
  }

  /** Stops, and reads everything back. Rejects when a block was wrong. */
  async stop(): Promise<void> {
    this.#stop = true;
    await this.#running;
    for (const [at, round] of this.#rounds) await this.#check(at, round);
    await this.close();
  }

  async close(): Promise<void> {
    await this.#client?.logout();
    this.#client = null;
  }

  async #run(): Promise<void> {
    for (let round = 1; !this.#stop; round++) {
      const page = round % this.pages;
      const at = page * pageBlocks + this.number * blocksOfOne + (round * 37 % blocksOfOne & -blocksAtOnce);
      await this.#command(cdb16(0x8a, at, blocksAtOnce), { dataOut: pattern(at, round) });
      this.#rounds.set(at, round);
      await this.#check(at, round);
      if (this.pauseMs > 0) await pause(this.pauseMs);
    }
  }

  async #check(at: number, round: number): Promise<void> {
    const data = await this.#command(cdb16(0x88, at, blocksAtOnce), { dataInMax: blocksAtOnce * 512 });
    assert.deepEqual(data, pattern(at, round), `client ${this.number}: block ${at}, round ${round}`);
  }

  /** Until it is GOOD; what was cut off by a move is sent again where it is then. */
  async #command(cdb: number[], options: { dataOut?: Uint8Array; dataInMax?: number }): Promise<Uint8Array> {
    for (let tries = 0;; tries++) {
      assert.ok(tries < 200, `client ${this.number}: a command was never carried out`);
      await this.#leaveIfAsked();
      const result = await this.#client!.command(cdb, options);
      if (result.outcome === "completed" && result.status === 0) {
        this.done++;
        return result.data.slice();
      }
      if (result.outcome === "completed") {
        // A unit attention of the login, or BUSY.
        assert.ok(
          result.status === 8 || result.status === 2 && (result.sense[2]! & 15) === 6,
          `status ${result.status}`,
        );
        continue;
      }
      this.again++;
      await this.#client!.closed;
      await this.#comeBack();
    }
  }

  async #leaveIfAsked(): Promise<void> {
    const asked = this.#client!.asyncMessages.some(({ header }) =>
      header.getUint8(36) === AsyncEvent.logoutRequested.code
    );
    if (!asked) return;
    assert.equal(await this.#client!.logout(), 0, "the Logout Response came");
    await this.#comeBack();
  }

  async #comeBack(): Promise<void> {
    await this.login();
  }
}

function pattern(at: number, round: number): Uint8Array {
  const out = new Uint8Array(blocksAtOnce * 512);
  for (let i = 0; i < out.length; i++) out[i] = (i * 7 + at * 13 + round * 101 + (i >> 9)) & 0xff;
  return out;
}
