// Initiators in a namespace of their own, for address_interop.ts: each logs in at the group's address, goes where it is sent,
// writes and verifies, and goes back to the address when its connection is lost. A line on the standard input ends them: they read
// everything back and print what they saw as JSON.

import { parseAddress } from "../../lib/config/address.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { InitiatorClient, LoginError } from "../../lib/session/initiator/mod.ts";
import { cdb16 } from "./plain_initiator.ts";

export interface ClientsOrder {
  /** "10.98.0.100:3260" */
  readonly portal: string;
  readonly target: string;
  readonly clients: number;
  readonly blocks: number;
}

export interface ClientReport {
  /** Where it logged in at last each time, and how long it had been without a session; milliseconds since 1970. */
  readonly logins: { readonly place: string; readonly atMs: number; readonly lostMs: number }[];
  writes: number;
  /** Sent again: not answered, or BUSY, or a unit attention. */
  again: number;
  readonly wrong: string[];
}

const blocksAtOnce = 8;
const network = new PortableNetwork();
let over = false;

class Client {
  readonly report: ClientReport = { logins: [], writes: 0, again: 0, wrong: [] };
  readonly #written = new Map<number, number>();
  #session: InitiatorClient | null = null;
  #lostMs = 0;

  constructor(readonly order: ClientsOrder, readonly number: number) {}

  async run(): Promise<ClientReport> {
    const slots = Math.floor(this.order.blocks / this.order.clients / blocksAtOnce);
    for (let round = 1; !over; round++) {
      const at = (this.number * slots + round * 37 % slots) * blocksAtOnce;
      await this.#done(cdb16(0x8a, at, blocksAtOnce), { dataOut: pattern(at, round) });
      this.#written.set(at, round);
      this.report.writes++;
      await this.#check(at, round);
      await pause(5);
    }
    for (const [at, round] of this.#written) await this.#check(at, round);
    await this.#session?.logout();
    return this.report;
  }

  async #check(at: number, round: number): Promise<void> {
    const data = await this.#done(cdb16(0x88, at, blocksAtOnce), { dataInMax: blocksAtOnce * 512 });
    const expected = pattern(at, round);
    if (data.length === expected.length && data.every((byte, i) => byte === expected[i])) return;
    this.report.wrong.push(`client ${this.number}: block ${at}, round ${round}`);
  }

  /** Until it is answered GOOD; the data. */
  async #done(cdb: number[], data: { dataOut?: Uint8Array; dataInMax?: number }): Promise<Uint8Array> {
    for (;;) {
      const session = this.#session ??= await this.#login();
      const result = await session.command(cdb, data);
      if (result.outcome === "completed" && result.status === 0) return result.data.slice();
      this.report.again++;
      if (result.outcome === "completed") await pause(20);
      else {
        this.#session = null;
        this.#lostMs = Date.now();
      }
    }
  }

  async #login(): Promise<InitiatorClient> {
    let portal = this.order.portal;
    for (;;) {
      const parsed = parseAddress(portal);
      if (parsed.kind !== "address") throw new Error(`sent to ${portal}`);
      try {
        const session = await InitiatorClient.connect(network, systemClock, systemRandom, {
          portal: parsed.address,
          initiatorName: `iqn.2026-11.net.plimsoll.test:host${this.number}`,
          targetName: this.order.target,
          isid: 0x8000_0000_0100 + this.number,
          connectTimeoutMs: 500,
          loginTimeoutMs: 2_500,
          nopIntervalMs: 500,
          nopTimeoutMs: 1_500,
        });
        const atMs = Date.now();
        const lostMs = this.#lostMs === 0 ? 0 : atMs - this.#lostMs;
        this.report.logins.push({ place: portal, atMs, lostMs });
        return session;
      } catch (error) {
        if (error instanceof LoginError && error.end.kind === "redirected") portal = error.end.address;
        else {
          portal = this.order.portal;
          await pause(50);
        }
      }
    }
  }
}

function pattern(at: number, round: number): Uint8Array {
  const out = new Uint8Array(blocksAtOnce * 512);
  for (let i = 0; i < out.length; i++) out[i] = (i * 7 + at * 13 + round * 101 + (i >> 9)) & 0xff;
  return out;
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

if (import.meta.main) {
  const order = JSON.parse(Deno.args[0]!) as ClientsOrder;
  const clients = Array.from({ length: order.clients }, (_, number) => new Client(order, number));
  const reports = Promise.all(clients.map((client) => client.run()));
  await Deno.stdin.read(new Uint8Array(1));
  over = true;
  console.log(JSON.stringify(await reports));
  Deno.exit(0);
}
