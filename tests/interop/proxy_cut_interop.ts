// Without this, a proxy could stand still with a cable: its paths over one portal are cut, and the portal's member has another.

import { strict as assert } from "node:assert";
import type { StatusReport } from "../../lib/mgmt/control.ts";
import { namespacesMissing } from "./namespaces.ts";
import { NamespacedGroup } from "./namespaced_group.ts";
import { runClient } from "./namespaced_client.ts";
import type { ClientOrder, ClientReport } from "./short_cut_client.ts";
import { iqnPrefix, pause } from "./target_process.ts";
import { inCi } from "./tools.ts";

const missing = namespacesMissing();
if (missing !== null) console.log(`left out: ${missing}`);
const members = ["alpha", "beta"];
const stallMsMax = 2_000;

/** Reads and writes until the file is there, on the machine "host" through its proxy. */
async function load(group: NamespacedGroup, untilFile: string): Promise<ClientReport> {
  const order: ClientOrder = {
    portal: { hostname: "127.0.0.1", port: group.port("proxy") },
    target: `${iqnPrefix}:vol0`,
    commands: Number.MAX_SAFE_INTEGER,
    untilFile,
    depth: 8,
    digests: false,
    sizeBytes: 64 * 1024 * 1024,
    writes: 0.4,
  };
  return await runClient(group.machines, "host", order);
}

Deno.test({
  name:
    "one portal's network is cut and mended under load through a proxy: no page stands still for 2 s, every byte is right",
  ignore: missing !== null && !inCi,
  async fn() {
    await using group = new NamespacedGroup(
      [...members, "host"],
      [
        ...members.map((name) => ({ name, lines: [] })),
        {
          name: "proxy",
          machine: "host",
          proxy: true,
          lines: [`group_portals = ["10.98.0.1:3260"]`, `volumes = ["vol0"]`],
        },
      ],
      [],
      2,
    );
    for (const name of members) await group.start(name);
    await group.volume("alpha", "vol0", "64MiB", members);
    await group.start("proxy");
    const paths = () => group.api<StatusReport>("proxy", "status")?.proxied?.[0]?.paths ?? [];
    const open = () => paths().filter(({ state }) => state === "open").map(({ portal }) => portal).sort();
    const all = ["10.98.0.1:3260", "10.98.0.2:3260", "10.98.1.1:3260", "10.98.1.2:3260"];
    await group.until(() => open().join() === all.join(), "a path to each portal");

    const enough = `${group.directory}/enough`;
    const running = load(group, enough);
    await pause(2_000);
    group.machines.plug("alpha", 1, "down");
    await pause(4_000);
    const during = open();
    assert.ok(during.length >= 3 && !during.includes("10.98.1.1:3260"), `open are ${during}`);
    group.machines.plug("alpha", 1, "up");
    await group.until(() => open().join() === all.join(), "each path is at its own portal again");
    await Deno.writeTextFile(enough, "");
    const report = await running;
    console.log(
      `     ${report.reads} reads, ${report.writes} writes, longest ${Math.round(report.longestMs)} ms, ` +
        `p99 of reads ${Math.round(report.readMs.p99)} ms`,
    );
    assert.deepEqual(report.wrong, []);
    assert.deepEqual(
      [report.logins, report.again],
      [0, 1],
      "logins again, commands again: the unit attention",
    );
    assert.ok(report.reads > 100 && report.writes > 100, "there was no load");
    assert.ok(report.longestMs > 300, "nothing was on its way over the portal that was cut");
    assert.ok(report.longestMs < stallMsMax, `a command took ${report.longestMs} ms`);
    for (const name of ["proxy", ...members.toReversed()]) await group.end(name, "SIGTERM");
  },
});
