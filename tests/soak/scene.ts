// What the parts of the soak's load share: the target, logins, the clock of the run, and the account of what was asked and
// answered. Whatever is wrong becomes a sentence here and ends the run.

import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { AdminClient } from "../../lib/mgmt/http_client.ts";
import { type ClientOptions, InitiatorClient } from "../../lib/session/initiator/mod.ts";
import { pause, type TargetProcess } from "../interop/target_process.ts";
import { split } from "../interop/plain_initiator.ts";
import { Dice } from "../roles/soak.ts";

/** Nothing of the load may take so long, milliseconds: below it a busy machine, above it a task without an answer. */
export const answerMsMax = 60_000;

export class Scene {
  readonly admin: AdminClient;
  readonly problems: string[] = [];
  /** How often what happened, for the report. */
  readonly counts: Record<string, number> = {};
  /** SCSI commands and task management functions that were answered. */
  answered = 0;
  readonly #network = new PortableNetwork();
  readonly #waiting = new Map<number, { readonly what: string; readonly sinceMs: number }>();
  readonly #endMs: number;
  #nextWait = 0;

  constructor(readonly target: TargetProcess, readonly seed: number, seconds: number) {
    const token = `${target.directory}/var/alpha/admin.token`;
    this.admin = new AdminClient(
      new URL(`http://${target.admin}`),
      async () => (await Deno.readTextFile(token)).trim(),
    );
    this.#endMs = Date.now() + seconds * 1000;
  }

  /** Each part has its own random numbers, so that one does not change another's. */
  dice(part: number): Dice {
    return new Dice(Math.imul(this.seed, 31) + part);
  }

  get over(): boolean {
    return Date.now() >= this.#endMs || this.problems.length > 0;
  }

  count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by;
  }

  problem(text: string): void {
    if (this.problems.length < 20) this.problems.push(text);
  }

  expect(holds: boolean, text: string): void {
    if (!holds) this.problem(text);
  }

  /** Waits, less at the end of the run. */
  async pause(milliseconds: number): Promise<void> {
    await pause(Math.max(0, Math.min(milliseconds, this.#endMs - Date.now())));
  }

  /** Sees to it that `work` ends: a task without an answer is told by look(). */
  async ends<T>(what: string, work: Promise<T>): Promise<T> {
    const wait = this.#nextWait++;
    this.#waiting.set(wait, { what, sinceMs: Date.now() });
    try {
      return await work;
    } finally {
      this.#waiting.delete(wait);
    }
  }

  /** Tells the first of what has waited too long; to be called now and then. */
  look(): void {
    const first = this.#waiting.values().next().value;
    if (first === undefined || Date.now() - first.sinceMs < answerMsMax) return;
    this.problem(`no answer within ${answerMsMax / 1000} s: ${first.what}`);
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Logs in; every command of the client is accounted for. */
  async login(
    volume: string | null,
    name: string,
    options: Partial<ClientOptions> = {},
  ): Promise<InitiatorClient> {
    const { hostname, port } = split(this.target.portals[name.length % 2]!);
    const connecting = InitiatorClient.connect(this.#network, systemClock, systemRandom, {
      portal: { hostname: hostname!, port },
      initiatorName: `iqn.2026-11.net.plimsoll.test:${name}`,
      targetName: volume === null ? null : this.target.iqn(volume),
      ...options,
    });
    const client = await this.ends(`login of ${name}`, connecting);
    this.count("logins");
    const { command, taskManagement } = client;
    client.command = async (...args) => {
      const result = await this.ends(
        `${name}: CDB ${[...args[0]].map((byte) => byte.toString(16)).join(" ")}`,
        command.apply(client, args),
      );
      this.answered++;
      return result;
    };
    client.taskManagement = async (...args) => {
      const result = await this.ends(`${name}: function ${args[0]}`, taskManagement.apply(client, args));
      this.answered++;
      return result;
    };
    return client;
  }
}
