// Random commands, data, aborts and task management against the device server.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { commands } from "../../lib/wire/scsi/cdb.ts";
import type { BenchTask } from "./device_bench.ts";
import { DeviceBench, pageBytes } from "./device_bench.ts";

const opcodes = [...new Set(commands.map((c) => c.opcode))];
const cdb = fc.tuple(
  fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...opcodes) }, { weight: 1, arbitrary: fc.nat(255) }),
  // Mostly zeroes, so that more than the reserved bits are tried.
  fc.array(fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(255) }), {
    minLength: 15,
    maxLength: 15,
  }),
).map(([opcode, rest]) => [opcode, ...rest]);

const step = fc.record({
  cdb,
  data: fc.option(fc.uint8Array({ maxLength: 2048 })),
  attribute: fc.nat(7),
  nexus: fc.nat(1),
  lun: fc.constantFrom(0, 0, 0, 0x0001_0000),
  holdData: fc.boolean(),
  holdBlocks: fc.boolean(),
  then: fc.constantFrom("nothing", "nothing", "release", "abort", "reset", "clear", "abortSet", "deliver"),
});

Deno.test("random commands never throw, and each ends exactly once", async () => {
  // Without this, one odd CDB from the network could end the process, or leave a command in it for ever.
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
      const bench = await DeviceBench.create({ sizeBytes: 4 * pageBytes });
      const nexuses = [bench.login("a"), bench.login("b")];
      const tasks: BenchTask[] = [];
      const outcomes: { outcome: string | null }[] = [];
      const act = (what: string, at: number) => {
        const nexus = nexuses[at % 2]!;
        if (what === "release") bench.blocks.release();
        if (what === "abort") {
          for (const t of tasks.filter((t) => t.status < 0).slice(0, 1)) bench.abort(t);
        }
        if (what === "deliver") {
          for (const t of tasks) if (t.status < 0 && t.requested >= 0) t.deliver();
        }
        if (what === "reset") outcomes.push(bench.manage(nexus, "logicalUnitReset"));
        if (what === "clear") outcomes.push(bench.manage(nexus, "clearTaskSet"));
        if (what === "abortSet") outcomes.push(bench.manage(nexus, "abortTaskSet"));
      };
      for (const [at, s] of steps.entries()) {
        bench.blocks.hold = s.holdBlocks;
        tasks.push(bench.send(nexuses[s.nexus]!, s.cdb, {
          ...(s.data === null ? {} : { data: s.data }),
          attribute: s.attribute,
          lunHigh: s.lun,
          holdData: s.holdData,
        }));
        act(s.then, at);
      }
      bench.blocks.hold = false;
      for (let round = 0; round < 60 && bench.server.commandsInFlight > 0; round++) {
        bench.blocks.release();
        act("deliver", 0);
        await Promise.resolve();
      }
      assert.equal(bench.server.commandsInFlight, 0);
      for (const task of tasks) assert.notEqual(task.status, -1);
      for (const { outcome } of outcomes) assert.equal(outcome, "complete");
    }),
    { numRuns: 1500 },
  );
});
