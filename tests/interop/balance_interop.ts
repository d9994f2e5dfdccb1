// Without this, clients could be spread over members in one process only: three members as processes, on real sockets.

import { strict as assert } from "node:assert";
import type { BalanceReport, SessionReport, StatusReport } from "../../lib/mgmt/control.ts";
import { MovingClient } from "./moving_client.ts";
import { api, pause, type TargetOptions, TargetProcess, until } from "./target_process.ts";
import { interop } from "./tools.ts";

const balance = [
  "report_seconds = 0.5",
  "settle_seconds = 3",
  "dwell_seconds = 10",
  "logout_seconds = 1",
  "work_min = 20",
  // Four alike on three members cannot be nearer to the average than 2, 1 and 1: 50 % above it.
  "dead_band = 0.6",
  "moves_at_once = 1",
];
/** How long nobody must be moved once it is even; 180 in the acceptance run. */
const quietS = Number(Deno.env.get("PLIMSOLL_QUIET_SECONDS") ?? 20);

class Three implements AsyncDisposable {
  private constructor(readonly members: readonly TargetProcess[]) {}

  static async start(loginPolicy: string): Promise<Three> {
    const options: TargetOptions = { volumes: [], diskSize: "128MiB", loginPolicy, balance, workers: 2 };
    const alpha = await TargetProcess.start(options);
    const shared = { ...options, ...alpha.fellowOptions };
    const members = [alpha];
    const three = new Three(members);
    try {
      for (const member of ["beta", "gamma"]) members.push(await TargetProcess.start({ ...shared, member }));
      await until(async () => {
        const all = await Promise.all(members.map((m) => api<StatusReport>(m, "/api/status")));
        return all.every((status) =>
          status.members.length === 3 && status.members.every(({ now }) => now !== null)
        );
      }, "all are heard of");
      return three;
    } catch (error) {
      await three[Symbol.asyncDispose]();
      throw error;
    }
  }

  get alpha(): TargetProcess {
    return this.members[0]!;
  }

  async run(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.alpha.run(...args, "--config", this.alpha.configuration);
    assert.equal(code, 0, stderr);
    return stdout;
  }

  async volume(name: string, pages: number, members = "alpha,beta,gamma"): Promise<void> {
    await this.run("volume", "create", name, "--size", `${pages * 4}MiB`, "--members", members);
    for (const member of this.members) {
      await until(async () => {
        const { volumes } = await api<StatusReport>(member, "/api/status");
        return volumes.some((v) => v.name === name && v.state === "online");
      }, `${name} is served`);
    }
  }

  async sessions(): Promise<SessionReport[][]> {
    return await Promise.all(this.members.map((m) => api<SessionReport[]>(m, "/api/sessions")));
  }

  client(number: number, volume: string, pauseMs = 5): MovingClient {
    const pages = volume === "vol0" ? 6 : 4;
    return new MovingClient(number, this.alpha.portals[0], this.alpha.iqn(volume), pages, pauseMs);
  }

  async stop(): Promise<void> {
    for (const member of this.members) assert.equal((await member.stop()).code, 0, member.log);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const member of this.members.toReversed()) await member[Symbol.asyncDispose]();
  }
}

interop(
  "12 clients through one portal are spread 4, 4, 4; libiscsi follows a redirect",
  ["qemu-io"],
  async () => {
    await using three = await Three.start("least-loaded");
    await three.volume("vol0", 6);
    const clients = Array.from({ length: 12 }, (_, i) => three.client(i, "vol0"));
    for (const client of clients) await client.login();
    const counts = (await three.sessions()).map((list) => list.length);
    assert.ok(counts.every((n) => n >= 3 && n <= 5), `${counts}`);
    for (const client of clients) await client.close();

    await three.volume("there", 4, "gamma");
    await three.run("balance", "policy", "affinity");
    await until(
      async () => (await api<BalanceReport>(three.alpha, "/api/balance")).policy === "affinity",
      "the policy",
    );
    const io = await new Deno.Command("qemu-io", {
      args: ["-f", "raw", "-c", "write -P 0x5a 0 1M", "-c", "read -P 0x5a 0 1M", three.alpha.url("there")],
    }).output();
    const text = new TextDecoder().decode(io.stdout) + new TextDecoder().decode(io.stderr);
    assert.equal(io.code, 0, text);
    assert.ok(!/fail|error/i.test(text), text);
    assert.match(three.alpha.log, /Login redirected.*gamma \(affinity\)/);
    console.log(`     sessions ${counts.join(", ")}`);
    await three.stop();
  },
);

interop(
  "a client that uses pages of one member only ends there, and nothing of its is forwarded any more",
  [],
  async () => {
    await using three = await Three.start("none");
    await three.volume("there", 4, "gamma");
    const client = three.client(1, "there");
    await client.login();
    client.start();
    await until(
      async () => (await three.sessions())[0]!.some(({ forwarded }) => forwarded > 50),
      "it is forwarded",
    );
    await three.run("balance", "policy", "affinity");
    const movedMs = await until(
      async () => (await three.sessions())[2]!.length === 1,
      "it is at gamma",
      60_000,
    );
    await pause(3_000);
    const [own] = (await three.sessions())[2]!;
    assert.ok(own!.commands > 50, "it goes on there");
    assert.equal(own!.forwarded, 0);
    assert.equal(own!.servedAt.gamma, 1);
    await client.stop();
    assert.deepEqual(client.places, [three.alpha.portals[0], three.members[2]!.portals[0]]);
    console.log(`     at its pages after ${(movedMs / 1000).toFixed(1)} s, ${client.done} commands verified`);
    await three.stop();
  },
);

interop(
  "four busy clients at one member: even within 60 s, at most 6 moves, no command lost, then quiet",
  [],
  async () => {
    await using three = await Three.start("none");
    await three.volume("vol0", 6);
    const clients = Array.from({ length: 4 }, (_, i) => three.client(i + 1, "vol0"));
    for (const client of clients) await client.login();
    for (const client of clients) client.start();
    await until(async () => {
      return (await api<StatusReport>(three.alpha, "/api/status")).members[0]!.now!.commandsPerS > 100;
    }, "they are busy");
    await three.run("balance", "policy", "least-loaded");
    const reports = () => Promise.all(three.members.map((m) => api<BalanceReport>(m, "/api/balance")));
    const even = async () =>
      (await three.sessions()).every((list) => list.length > 0) &&
      (await reports())[0]!.members.every(({ excess }) => excess <= 0.6);
    const evenMs = await until(even, "it is even", 60_000).catch(async (error: Error) => {
      const members = JSON.stringify(
        (await reports()).map(({ members, next, moves }) => ({ members, next, moves })),
      );
      throw new Error(
        `${error.message}: ${members}\n${three.members.map(({ log }) => log.slice(-2000)).join("\n")}`,
      );
    });
    const moves = async () => (await reports()).reduce((sum, report) => sum + report.moves, 0);
    const made = await moves();
    assert.ok(made >= 2 && made <= 6, `${made} moves`);
    await pause(quietS * 1000);
    assert.equal(await moves(), made, "nobody is moved any more");
    for (const client of clients) await client.stop();
    const done = clients.reduce((sum, { done }) => sum + done, 0);
    const again = clients.reduce((sum, { again }) => sum + again, 0);
    console.log(
      `     even after ${
        (evenMs / 1000).toFixed(1)
      } s, ${made} moves, quiet for ${quietS} s; ${done} commands, ${again} sent again`,
    );
    await three.stop();
  },
);

interop("session move and member drain by the command line, under load", [], async () => {
  await using three = await Three.start("none");
  await three.volume("vol0", 6);
  const client = three.client(1, "vol0", 0);
  await client.login();
  client.start();
  await until(async () => (await three.sessions())[0]!.length === 1, "it is at alpha");
  const [own] = (await three.sessions())[0]!;
  assert.match(await three.run("session", "move", String(own!.id), "--to", "beta"), /is asked to go to beta/);
  await until(async () => (await three.sessions())[1]!.length === 1, "it is at beta");
  await three.run("member", "drain", "beta");
  await until(async () => (await three.sessions())[1]!.length === 0, "it is away from beta", 40_000);
  const late = three.client(2, "vol0");
  await late.login();
  await late.close();
  await client.stop();
  assert.ok(client.places.length >= 3, client.places.join());
  const moved = await three.alpha.run(
    "session",
    "move",
    "4711",
    "--to",
    "beta",
    "--config",
    three.alpha.configuration,
  );
  assert.equal(moved.code, 1);
  assert.match(moved.stderr, /no such session/);
  console.log(
    `     ${client.done} commands verified, ${client.again} sent again, at ${client.places.join(", ")}`,
  );
});
