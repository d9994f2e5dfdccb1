// Without this, a nexus that goes on at another member could lose a unit attention, or a reservation that shuts others out.

import { strict as assert } from "node:assert";
import type { Nexus } from "../../lib/session/nexus.ts";
import type { NexusBaggage } from "../../lib/session/task.ts";
import { DeviceBench, settings } from "./device_bench.ts";
import { UnitGroup } from "./unit_stores.ts";

async function members(): Promise<[DeviceBench, DeviceBench]> {
  const group = new UnitGroup();
  return [await DeviceBench.create({}, group, "run 1"), await DeviceBench.create({}, group, "run 2")];
}

/** The same nexus at another member: its number is another one. */
function arriving(bench: DeviceBench, nexus: Nexus): Nexus {
  return { ...nexus, id: 100, deviceServer: bench.server };
}

function departs(bench: DeviceBench, nexus: Nexus): NexusBaggage {
  const baggage = bench.server.departs(nexus);
  assert.ok(typeof baggage !== "string", baggage as string);
  return baggage;
}

Deno.test("unit attentions that were not told go along, and no others come with the move", async () => {
  const [alpha, beta] = await members();
  const nexus = alpha.login("a");
  alpha.server.raise("softThreshold");
  const there = arriving(beta, nexus);
  assert.equal(beta.server.arrives(there, departs(alpha, nexus)), null);
  alpha.server.nexusLost(nexus);
  assert.equal(beta.run(there, [0]).senseText, "6/38/07");
  assert.equal(beta.run(there, [0]).status, 0);
  assert.equal(alpha.server.inUseBeside(""), false);
});

Deno.test("one to which a loss of writes was not told yet is told at its new member", async () => {
  const [alpha, beta] = await members();
  const nexus = alpha.login("a");
  beta.server.raise("writesLost");
  const there = arriving(beta, nexus);
  assert.equal(beta.server.arrives(there, departs(alpha, nexus)), null);
  assert.equal(beta.run(there, [0]).senseText, "6/29/01");
});

Deno.test("what a member keeps of a nexus and cannot give away keeps it", async () => {
  const [alpha] = await members();
  const nexus = alpha.login("a");
  alpha.run(nexus, [0x16, 0, 0, 0, 0, 0]);
  assert.match(String(alpha.server.departs(nexus)), /RESERVE/);
  alpha.run(nexus, [0x17, 0, 0, 0, 0, 0]);
  assert.equal(typeof alpha.server.departs(nexus), "object");
  const held = alpha.send(nexus, [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], {
    data: new Uint8Array(512),
    holdData: true,
  });
  assert.match(String(alpha.server.departs(nexus)), /in flight/);
  alpha.abort(held);
  alpha.server.close("deleted", () => {});
  assert.match(String(alpha.server.departs(nexus)), /not served/);
});

Deno.test("members that do not know the same of the unit refuse", async () => {
  const [alpha, beta] = await members();
  const nexus = alpha.login("a");
  const there = arriving(beta, nexus);
  const baggage = departs(alpha, nexus);
  const unknown = /not known to both members/;
  assert.match(
    String(beta.server.arrives(there, { ...baggage, unitNumber: baggage.unitNumber + 1 })),
    unknown,
  );
  beta.server.update({ ...settings, sizeBytes: settings.sizeBytes * 2 });
  assert.match(String(beta.server.arrives(there, baggage)), unknown);
  assert.equal(beta.server.inUseBeside(""), false, "nothing has happened");
  alpha.server.update({ ...settings, sizeBytes: settings.sizeBytes * 2, revision: "0.2 " });
  assert.equal(
    beta.server.arrives(there, departs(alpha, nexus)),
    null,
    "another program version is no obstacle",
  );
  assert.equal(beta.run(there, [0]).senseText, "6/2a/09", "the new capacity, which alpha had not told yet");
});
