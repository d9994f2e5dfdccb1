// Without this, whether a client notices that its session moves with its connection is unknown: three members in namespaces of
// their own, and a plain initiator in a fourth, connected to one of them.

import { strict as assert } from "node:assert";
import type { MoveReport, SessionReport } from "../../lib/mgmt/control.ts";
import { Namespaces, namespacesMissing } from "./namespaces.ts";
import { runClient } from "./namespaced_client.ts";
import type { ClientOrder, ClientReport } from "./short_cut_client.ts";
import { iqnPrefix, pause, program } from "./target_process.ts";

const missing = namespacesMissing();
if (missing !== null) console.log(`left out: ${missing}`);
const MiB = 1024 * 1024;
const sizeBytes = 48 * MiB;
const names = ["alpha", "beta", "gamma"] as const;
type Name = typeof names[number];

interface Holder {
  readonly name: Name;
  readonly id: number;
}
type MoveAnswer = MoveReport | { readonly how?: undefined; readonly error?: unknown };

class Group implements AsyncDisposable {
  readonly machines = new Namespaces(["client", ...names]);
  readonly directory = Deno.makeTempDirSync({ prefix: "plimsoll-live-" });
  readonly #children = new Map<Name, { child: Deno.ChildProcess; log: Promise<string> }>();
  /** Logs so far. */
  readonly #seen = new Map<Name, string>();
  readonly #enough = `${this.directory}/enough`;

  static async make(): Promise<Group> {
    const group = new Group();
    try {
      for (const name of names) group.#configure(name);
      for (const name of names) await group.start(name);
      // deno-fmt-ignore
      group.tool("alpha", "volume", "create", "vol", "--size", "48MiB", "--members", names.join(","), "--initiators", "*");
      for (const name of names) {
        await group.until(async () => (await group.api(name, "volumes/vol/route")) !== null, "it is served");
      }
      return group;
    } catch (error) {
      await group[Symbol.asyncDispose]();
      throw error;
    }
  }

  #configure(name: Name): void {
    Deno.writeTextFileSync(
      `${this.directory}/${name}.toml`,
      `[group]
name = "demo"
metadata = "sqlite:group.db"
secret_file = "group.secret"
iqn_prefix = "${iqnPrefix}"
login_policy = "none"
[member]
name = "${name}"
portals = ["${this.machines.address(name)}:3260"]
admin = "127.0.0.1:3280"
state_dir = "${name}"
workers = 1
short_cut_bytes = "64KiB"
[[disk]]
path = "${name}/disk0.img"
size = "128MiB"
`,
    );
  }

  async start(name: Name): Promise<void> {
    const child = new Deno.Command("ip", {
      // deno-fmt-ignore
      args: ["netns", "exec", this.machines.of(name), ...program(), "target", "--config", `${this.directory}/${name}.toml`],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#children.set(name, { child, log: this.#read(name, child.stderr) });
    await this.until(async () => (await this.api(name, "status")) !== null, `${name} is up`);
  }

  async #read(name: Name, log: ReadableStream<Uint8Array>): Promise<string> {
    for await (const text of log.pipeThrough(new TextDecoderStream())) {
      this.#seen.set(name, (this.#seen.get(name) ?? "") + text);
    }
    return this.#seen.get(name) ?? "";
  }

  /** Ends a member; its log. */
  async end(name: Name, signal: Deno.Signal): Promise<string> {
    const { child, log } = this.#children.get(name)!;
    this.#children.delete(name);
    try {
      child.kill(signal);
    } catch {
      // it has ended by itself, which its log explains
    }
    const { code, signal: by } = await child.status;
    return `${await log}(ended with ${by ?? code})\n`;
  }

  /** Null: it does not answer. */
  async api<T>(name: Name, path: string): Promise<T | null> {
    return await this.#ask<T>(name, path, []);
  }

  /** Never synchronously: the members' logs are read meanwhile, or they would wait for that. */
  async #ask<T>(name: Name, path: string, more: readonly string[]): Promise<T | null> {
    // deno-fmt-ignore
    const args = ["netns", "exec", this.machines.of(name), "curl", "-s", "--max-time", "10", ...more, `http://127.0.0.1:3280/api/${path}`];
    const { code, stdout } = await new Deno.Command("ip", { args, stdout: "piped", stderr: "null" }).output();
    return code === 0 && stdout.length > 0 ? JSON.parse(new TextDecoder().decode(stdout)) as T : null;
  }

  tool(name: Name, ...args: string[]): string {
    return this.machines.exec(name, ...program(), ...args, "--config", `${this.directory}/${name}.toml`);
  }

  /** Who has the client's session, and its number there; null: nobody. */
  async holder(): Promise<Holder | null> {
    for (const name of names) {
      const id = (await this.api<SessionReport[]>(name, "sessions"))?.[0]?.id;
      if (id !== undefined) return { name, id };
    }
    return null;
  }

  /** Moves the client's session; what the member says. */
  async move(from: Holder, to: Name): Promise<MoveAnswer> {
    const token = Deno.readTextFileSync(`${this.directory}/${from.name}/admin.token`).trim();
    const answer = await this.#ask<MoveAnswer>(from.name, `sessions/${from.id}/move`, [
      "-H",
      "Content-Type: application/json",
      "-H",
      `Authorization: Bearer ${token}`,
      "-d",
      JSON.stringify({ to, live: true }),
    ]);
    return answer ?? { error: "no answer" };
  }

  /** Where the client is logged in. */
  async present(): Promise<Holder> {
    let holder: Holder | null = null;
    await this.until(async () => (holder = await this.holder()) !== null, "the client is logged in");
    return holder!;
  }

  /** Logins of clients at alpha, whose portal they use. */
  logins(): number {
    const text = this.#seen.get("alpha") ?? "";
    return text.split("\n").filter((line) => / Logged in /.test(line) && !/initiator=\S*:member\./.test(line))
      .length;
  }

  /** The client finishes what it has begun, and reports. */
  enough(): void {
    Deno.writeTextFileSync(this.#enough, "");
  }

  client(order: Partial<ClientOrder>): { report: Promise<ClientReport> } {
    const whole: ClientOrder = {
      portal: { hostname: this.machines.address("alpha"), port: 3260 },
      target: `${iqnPrefix}:vol`,
      commands: 10_000_000,
      depth: 16,
      digests: true,
      sizeBytes,
      writes: 0.3,
      untilFile: this.#enough,
      ...order,
    };
    return { report: runClient(this.machines, "client", whole) };
  }

  /** The client's ends of its connections to the portal. */
  connections(): string[] {
    const out = this.machines.exec("client", "ss", "-Htn", "state", "established", "dport", "=", ":3260");
    return out.trim().split("\n").map((line) => line.trim().split(/\s+/).slice(2).join(" ")).sort();
  }

  async until(condition: () => Promise<boolean>, what: string, msMax = 30_000): Promise<void> {
    const begin = Date.now();
    while (!await condition()) {
      assert.ok(Date.now() - begin < msMax, `waited too long: ${what}`);
      await pause(100);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.#children.keys()]) await this.end(name, "SIGKILL");
    this.machines[Symbol.dispose]();
    await Deno.remove(this.directory, { recursive: true });
  }
}

function scene(name: string, fn: (group: Group) => Promise<void>): void {
  Deno.test({ name, ignore: missing !== null }, async () => {
    await using group = await Group.make();
    try {
      await fn(group);
    } catch (error) {
      for (const name of names) console.log(`${name}:\n${(await group.end(name, "SIGTERM")).slice(-6000)}`);
      throw error;
    }
  });
}

/** An afternoon's run has more of both. */
const rounds = Number(Deno.env.get("PLIMSOLL_LIVE_MOVES") ?? 100);
const kills = Number(Deno.env.get("PLIMSOLL_LIVE_KILLS") ?? 2);

for (const digests of [true, false]) {
  const moves = digests ? rounds : Math.ceil(rounds / 10);
  const how = digests ? "both digests" : "no digests, half of it writes";
  scene(`a busy connection (${how}) moves ${moves} times between three members, unnoticed`, async (group) => {
    // Lost without it: the promise itself.
    const running = group.client({ digests, writes: digests ? 0.3 : 0.5 });
    await group.present();
    await pause(500);
    const before = group.connections();
    assert.equal(before.length, 1);
    const times: number[] = [];
    for (let i = 0; i < moves; i++) {
      const from = await group.present();
      const to = names[(names.indexOf(from.name) + 1 + i % 2) % 3]!;
      const report = await group.move(from, to);
      assert.equal(report.how, "live", JSON.stringify(report));
      times.push(report.pauseMs!);
    }
    assert.deepEqual(group.connections(), before, "the client's TCP connection is another one");
    group.enough();
    const report = await running.report;
    times.sort((a, b) => a - b);
    const at = (share: number) => times[Math.floor((times.length - 1) * share)]!.toFixed(1);
    console.log(
      `stood still: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms`,
      JSON.stringify(report),
    );
    assert.deepEqual(report.wrong, []);
    assert.equal(report.logins, 0, "the connection was lost");
    assert.equal(report.again, 1, "a command failed, beside the one that tells of the login");
    assert.ok(report.reads + report.writes > 20 * moves);
  });
}

scene(
  "stock initiators under way: qemu-img writes and compares, iscsi-perf reads, each on one connection",
  async (group) => {
    // Lost without it: a move that only our own initiator does not notice.
    const url = `iscsi://${group.machines.address("alpha")}:3260/${iqnPrefix}:vol/0`;
    const image = `${group.directory}/image.raw`;
    const bytes = new Uint8Array(sizeBytes);
    for (let i = 0; i < bytes.length; i += 65_536) crypto.getRandomValues(bytes.subarray(i, i + 65_536));
    await Deno.writeFile(image, bytes);
    const works = {
      "qemu-img convert": [
        "qemu-img",
        "convert",
        "-n",
        "-t",
        "none",
        "-r",
        "24M",
        "-f",
        "raw",
        "-O",
        "raw",
        image,
        url,
      ],
      "qemu-img compare": ["qemu-img", "compare", "-f", "raw", "-F", "raw", image, url],
      "iscsi-perf": ["iscsi-perf", "-m", "16", "-b", "16", "-t", "4", "-r", url],
    };
    for (const [what, command] of Object.entries(works)) {
      const logins = group.logins();
      const work = new Deno.Command("ip", {
        args: ["netns", "exec", group.machines.of("client"), ...command],
        stdout: "piped",
        stderr: "piped",
      }).output();
      let over = false;
      void work.finally(() => over = true);
      let moved = 0;
      while (!over) {
        const from = await group.holder();
        if (from === null) continue;
        const answer = await group.move(from, names[(names.indexOf(from.name) + 1) % 3]!);
        if (answer.how === "live") moved++;
      }
      const { code, stderr, stdout } = await work;
      const said = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout);
      assert.equal(code, 0, `${what}: ${said}`);
      assert.equal(group.logins() - logins, 1, `${what} has logged in again`);
      console.log(`${what}: moved ${moved} times`);
      assert.ok(moved > 0, `${what} was over before anything could move`);
    }
  },
);

const victims = {
  "the owner": "beta",
  "the member whose portal it is": "alpha",
  "the member it goes to": "gamma",
} as const;
for (const [what, victim] of Object.entries(victims)) {
  scene(`${what} is killed around a move: no wrong byte, and the client finishes`, async (group) => {
    // Lost without it: what is left of a connection when one of those that have to do with it is gone.
    const running = group.client({ depth: 8 });
    let moved = 0;
    for (let i = 0; i < kills; i++) {
      await group.until(async () => {
        const at = await group.present();
        if (at.name === "beta") return true;
        const answer = await group.move(at, "beta");
        if (answer.how !== "live") console.log(`to beta: ${JSON.stringify(answer)}`);
        return answer.how === "live";
      }, "it is at beta");
      await pause(300);
      const from = await group.present();
      // Before, in the middle of, or after it.
      const killed = pause(Math.random() * 250).then(() => group.end(victim, "SIGKILL"));
      if ((await group.move(from, "gamma")).how === "live") moved++;
      await killed;
      await group.start(victim);
    }
    await group.present();
    group.enough();
    const report = await running.report;
    console.log(`${moved} of ${kills} moves were done`, JSON.stringify(report));
    assert.deepEqual(report.wrong, []);
    assert.ok(report.reads + report.writes > 100);
    // Whoever had it before has nothing to do with it any more.
    if (victim === "beta") {
      assert.ok(report.logins <= kills - moved, "the death of a former owner was noticed");
    }
  });
}
