// Without this, the group's address is an idea: three members on machines of their own, initiators on a fourth that know that
// address alone, and a member that is killed, stopped, continued, and told to stop.

import { strict as assert } from "node:assert";
import type { MemberReport, SessionReport, StatusReport } from "../../lib/mgmt/control.ts";
import type { ClientReport, ClientsOrder } from "./address_client.ts";
import { NamespacedGroup } from "./namespaced_group.ts";
import { namespacesMissing } from "./namespaces.ts";
import { iqnPrefix, pause, root } from "./target_process.ts";
import { interop } from "./tools.ts";

const missing = namespacesMissing();
if (missing !== null) console.log(`left out: ${missing}`);
const hostname = "10.98.0.100";
const portal = `${hostname}:3260`;
const names = ["alpha", "beta", "gamma"];
const initiators = 6;

class Scene implements AsyncDisposable {
  readonly group: NamespacedGroup;
  /** The most machines that had the address at one time, and how often was looked. */
  ownersMost = 0;
  looks = 0;
  #timer: ReturnType<typeof setInterval> | null = null;
  #clients: Deno.ChildProcess | null = null;

  private constructor() {
    const lines = ["[balance]", "report_seconds = 0.5"];
    const groupLines = [`portal = "${portal}"`, 'login_policy = "round-robin"'];
    this.group = new NamespacedGroup(["client", ...names], [
      { name: "alpha", lines, groupLines },
      { name: "beta", lines, groupLines },
      // It has all pages, and may not touch addresses: so it never is what is killed.
      { name: "gamma", lines, groupLines, within: ["setpriv", "--bounding-set=-net_admin"] },
    ]);
  }

  static async start(): Promise<Scene> {
    const scene = new Scene();
    await scene.group.setUp(async () => {
      for (const name of names) await scene.group.start(name);
      await scene.group.volume("alpha", "vol", "64MiB", ["gamma"]);
      await scene.group.until(
        () => names.every((name) => scene.status(name)?.members.every(({ now }) => now !== null) === true),
        "all are heard of",
      );
    });
    scene.#timer = setInterval(() => {
      scene.looks++;
      scene.ownersMost = Math.max(scene.ownersMost, scene.owners().length);
    }, 20);
    return scene;
  }

  status(name: string): StatusReport | null {
    return this.group.api<StatusReport>(name, "status");
  }

  /** As their kernels have it. */
  owners(): string[] {
    return names.filter((name) =>
      this.group.machines.within(name, () => Deno.networkInterfaces()).some(({ address }) =>
        address === hostname
      )
    );
  }

  startClients(): void {
    const order: ClientsOrder = { portal, target: `${iqnPrefix}:vol`, clients: initiators, blocks: 131_072 };
    this.#clients = new Deno.Command("ip", {
      // deno-fmt-ignore
      args: ["netns", "exec", this.group.machines.of("client"), Deno.execPath(), "run", "-A", "--quiet", "--no-check", `${root}tests/interop/address_client.ts`, JSON.stringify(order)],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
  }

  async stopClients(): Promise<ClientReport[]> {
    const clients = this.#clients!;
    const writer = clients.stdin.getWriter();
    await writer.write(new Uint8Array(1));
    await writer.close();
    const { stdout } = await clients.output();
    this.#clients = null;
    return JSON.parse(new TextDecoder().decode(stdout));
  }

  /** Sessions at each member that answers. */
  sessionsAt(...members: string[]): number[] {
    return members.map((name) => this.group.api<SessionReport[]>(name, "sessions")?.length ?? -1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#clients?.kill("SIGKILL");
    await this.#clients?.output();
    await this.group[Symbol.asyncDispose]();
  }
}

/** The longest that a client was without a session after `sinceMs`, and before `untilMs`. */
function longestMs(reports: readonly ClientReport[], sinceMs: number, untilMs: number): number {
  const within = reports.flatMap(({ logins }) =>
    logins.filter(({ atMs }) => atMs > sinceMs && atMs < untilMs)
  );
  return Math.max(0, ...within.map(({ lostMs }) => lostMs));
}

async function acts(scene: Scene): Promise<void> {
  const { group } = scene;
  const holder = (by: string) => scene.status(by)?.groupAddress?.holder;
  const allAt = (...members: string[]) => () =>
    scene.sessionsAt(...members).reduce((sum, count) => sum + count) === initiators;
  const seconds = (ms: number) => (ms / 1000).toFixed(1);
  assert.deepEqual(scene.owners(), ["alpha"], "the first that could, whoever else came");
  const gamma = scene.status("gamma")!;
  assert.match(
    gamma.notices.join(),
    /cannot hold the group's address 10\.98\.0\.100:3260\. The capability CAP_NET_ADMIN/,
  );
  assert.equal(gamma.groupAddress?.holder, "alpha");

  // Initiators of others' making: libiscsi finds the address alone, and follows the redirect.
  const found = group.machines.exec("client", "iscsi-ls", `iscsi://${portal}`);
  assert.match(found, /:vol Portal:10\.98\.0\.100:3260,1$/m);
  assert.equal(found.trim().split("\n").length, 1, found);
  const inquiry = group.machines.exec("client", "iscsi-inq", `iscsi://${portal}/${iqnPrefix}:vol/0`);
  assert.match(inquiry, /Plimsoll/i);

  scene.startClients();
  const spread = () => scene.sessionsAt(...names);
  await group.until(
    () => spread().every((count) => count === initiators / 3),
    `${initiators} at three members`,
  );

  const killedMs = Date.now();
  await group.end("alpha", "SIGKILL");
  await group.until(() => holder("beta") === "beta", "beta has the address");
  const takenMs = Date.now() - killedMs;
  await group.until(
    allAt("beta", "gamma"),
    "all are back",
  );
  await group.start("alpha");
  await pause(2_000);
  assert.deepEqual(scene.owners(), ["beta"], "alpha is back, and the address stays");

  // A member that stood still for longer than its own lease, too: what it had received is not done any more.
  const stoppedMs = Date.now();
  Deno.kill(group.pid("beta"), "SIGSTOP");
  await group.until(() => holder("alpha") === "alpha", "alpha has the address");
  const takenAgainMs = Date.now() - stoppedMs;
  await pause(Math.max(0, 13_000 - takenAgainMs));
  const continuedMs = Date.now();
  Deno.kill(group.pid("beta"), "SIGCONT");
  await pause(2_000);
  assert.deepEqual(scene.owners(), ["alpha"]);
  const told = group.api<MemberReport[]>("beta", "members")!;
  assert.deepEqual(told.filter((m) => m.groupAddress === portal).map(({ name }) => name), ["alpha"]);

  const cutMs = Date.now();
  group.machines.exec("alpha", "ip", "link", "set", "eth0", "down");
  await group.until(() => holder("beta") === "beta", "beta has the address again");
  const takenFromCutMs = Date.now() - cutMs;
  group.machines.exec("alpha", "ip", "link", "set", "eth0", "up");
  await group.until(() => scene.status("alpha")?.notices.length === 0, "alpha could have it again");

  const endedMs = Date.now();
  const ended = group.end("beta", "SIGTERM");
  await group.until(() => holder("alpha") === "alpha", "alpha has the address again");
  const handedMs = Date.now() - endedMs;
  await ended;
  await group.until(allAt("alpha", "gamma"), "all are back");

  const reports = await scene.stopClients();
  const back = {
    killed: longestMs(reports, killedMs, stoppedMs),
    stopped: longestMs(reports, stoppedMs, continuedMs),
    ended: longestMs(reports, endedMs, Date.now()),
  };
  console.log(
    `     killed: taken over after ${seconds(takenMs)} s, clients back within ${seconds(back.killed)} s; ` +
      `stopped: ${seconds(takenAgainMs)}, ${seconds(back.stopped)}; interface down: ${
        seconds(takenFromCutMs)
      }; told to stop: ${seconds(handedMs)}, ${seconds(back.ended)}; ` +
      `${reports.reduce((sum, { writes }) => sum + writes, 0)} writes verified, looked ${scene.looks} times`,
  );
  assert.deepEqual(reports.flatMap(({ wrong }) => wrong), []);
  assert.ok(scene.looks > 300, `looked ${scene.looks} times only`);
  assert.equal(scene.ownersMost, 1, "two had the address at one time");
  // Promised are 5 s (docs/group.md has what was measured); a busy machine may add to it. It is less than a member's lease: the
  // address does not wait for that.
  assert.ok(
    back.killed > 1_000 && back.killed < 9_000,
    `the killed holder's clients were back after ${back.killed} ms`,
  );
  assert.ok(handedMs < 2_500, `handed over after ${handedMs} ms, which is when a lease may have run out`);
  for (const { logins } of reports) {
    for (const { place } of logins) assert.notEqual(place, portal, "nobody stays at the group's address");
  }
}

if (missing === null) {
  interop(
    "the group's address: killed, stopped and ended, its holder is followed by another, and no write is lost",
    ["setpriv", "iscsi-ls", "iscsi-inq"],
    async () => {
      await using scene = await Scene.start();
      try {
        await acts(scene);
      } catch (error) {
        for (const name of names) {
          console.log(`${name}:\n${(await scene.group.end(name, "SIGTERM").catch(() => "")).slice(-4000)}`);
        }
        throw error;
      }
    },
  );
}
