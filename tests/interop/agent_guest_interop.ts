// Without this, the host agent would be right towards a model of the kernel only: here a Linux kernel takes what it says.

import { strict as assert } from "node:assert";
import type { RouteReport, SessionReport } from "../../lib/mgmt/control.ts";
import { guest, guestNeeds } from "./guest.ts";
import { api, iqnPrefix, pause, root, type TargetProcess } from "./target_process.ts";
import { ThreeMembers } from "./three_members.ts";
import { finish, interop, succeed } from "./tools.ts";

const packed = `${root}dist/plimsoll`;
const awayMs = 2_000;

/** The program as it is after its first start, which takes an emulated machine half a minute. */
async function unpacked(cache: string): Promise<string> {
  const started = await finish(packed, ["host-agent", "--config", "/nonexistent"], {
    secondsMax: 60,
    env: { CACHE_DIRECTORY: cache },
  });
  assert.equal(started.code, 1, started.output);
  await succeed("tar", ["-C", cache, "-cf", `${cache}.tar`, "."], { secondsMax: 60 });
  return `${cache}.tar`;
}

/** Of commands that came over sessions of the host. */
async function forwarded(members: readonly TargetProcess[]): Promise<number> {
  const lists = await Promise.all(members.map((member) => api<SessionReport[]>(member, "/api/sessions")));
  return lists.flat().filter(({ initiator }) => initiator.includes(":proxy."))
    .reduce((sum, session) => sum + session.forwarded, 0);
}

interop(
  "in a Linux guest the host agent's switch device sends every page to its member, and follows pages that move",
  [packed, ...guestNeeds],
  async () => {
    await using group = await ThreeMembers.start("sqlite", {
      diskSize: "128MiB",
      pageSize: "1MiB",
      addresses: ["127.0.0.1", "127.0.0.2"],
      onePortal: true,
    });
    await group.createVolume("vol0", "16MiB");
    const [alpha, beta] = group.members as [TargetProcess, TargetProcess, TargetProcess];
    const command = async (...args: string[]) => {
      const { code, stdout, stderr } = await alpha.run(...args, "--config", alpha.configuration);
      assert.equal(code, 0, stdout + stderr);
      return "";
    };
    /** What the guest asks for. */
    const answers: Record<string, () => Promise<string>> = {
      secret: () => Deno.readTextFile(`${alpha.directory}/var/group.secret`),
      "agent.toml": () =>
        Promise.resolve(
          `[group]\nname = "demo"\nsecret_file = "group.secret"\niqn_prefix = "${iqnPrefix}"\n` +
            `[agent]\ngroup_portals = ["${alpha.portals[0]}", "${beta.portals[0]}"]\nvolumes = ["vol0"]\n` +
            `admin = "127.0.0.99:3283"\nstate_dir = "/var/lib/plimsoll"\npath_timeout_ms = 5000\n`,
        ),
      forwarded: async () => String(await forwarded(group.members)),
      "cache-off": () => command("volume", "set", "vol0", "--write-cache", "off"),
      drain: async () => {
        await command("member", "drain", "gamma");
        const emptied = async () => {
          const { runs } = await api<RouteReport>(alpha, "/api/volumes/vol0/route");
          return runs.every(([home]) => home !== "gamma");
        };
        for (let i = 0; !await emptied(); i++) {
          assert.ok(i < 300, "gamma is not emptied");
          await pause(100);
        }
        return "";
      },
      kill: async () => {
        await beta.stop("SIGKILL");
        await pause(awayMs);
        await beta.restart();
        return "";
      },
      grow: () => command("volume", "resize", "vol0", "24MiB"),
      "kill-all": async () => {
        await Promise.all(group.members.map((member) => member.stop("SIGKILL")));
        await pause(awayMs);
        for (const member of group.members) await member.restart();
        return "";
      },
      replace: async () => {
        await command("volume", "delete", "vol0", "--yes");
        const size = ["--size", "16MiB", "--write-cache", "off"];
        await command("volume", "create", "vol0", ...size, "--members", "alpha,beta");
        return await command("volume", "set", "vol0", "--write-protect", "on");
      },
      protect: () => command("volume", "set", "vol0", "--write-protect", "on"),
      unprotect: () => command("volume", "set", "vol0", "--write-protect", "off"),
    };
    const cache = `${alpha.directory}/cache`; // at the same place there: Deno's own cache goes by paths
    const files: Record<string, string> = { plimsoll: packed, "cache.tar": await unpacked(cache) };
    const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async ({ url }) => {
      const what = new URL(url).pathname.slice(1);
      if (files[what] !== undefined) return new Response((await Deno.open(files[what])).readable);
      try {
        return new Response(await answers[what]!());
      } catch (error) {
        console.error(`     asked for ${what}:`, error);
        return new Response(null, { status: 500 });
      }
    });
    try {
      const environment = { WEB_PORT: String(server.addr.port), CACHE_DIRECTORY: cache };
      const script = `${root}tests/interop/guest/agent.sh`;
      const told = await guest(alpha, "vol0", script, environment, null, 1024);
      console.log(told.replace(/^/gm, "     ").trimEnd());
      assert.match(told, /== PASS agent/);
    } finally {
      await server.shutdown();
    }
    await group.stop();
  },
);
