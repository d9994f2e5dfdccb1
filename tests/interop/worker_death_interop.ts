// Without this, a worker of the data plane that fails, hangs or ends could leave a process that serves nothing, or lose what was
// acknowledged: whatever happens to the worker, the process ends with 70 for systemd to start it again, the portals are
// free at once, the disk is sound and every acknowledged block is there.

import { strict as assert } from "node:assert";
import { Model, random, verify, writer } from "./death_model.ts";
import { PlainInitiator } from "./plain_initiator.ts";
import { engineOfRun, pause, program, TargetProcess } from "./target_process.ts";

const seed = Number(Deno.env.get("PLIMSOLL_SEED") ?? Math.floor(Math.random() * 2 ** 31));
/** A silent worker is noticed after 5 s and a look every second; the rest is a busy machine. */
const endMsMax = 20_000;

const faults: readonly { readonly name: string; readonly told: RegExp }[] = [
  { name: "an error thrown in the loop", told: /worker( 1)? has failed/ },
  { name: "a promise rejected", told: /worker( 1)? has failed/ },
  { name: "an error thrown in a timer", told: /worker( 1)? has failed/ },
  { name: "an endless loop", told: /worker( 1)? does not turn any more/ },
  { name: "a system call that does not return", told: /worker( 1)? does not turn any more/ },
  { name: "an exit of the worker", told: /(data-plane|I\/O) worker/ },
  { name: "a close of the worker", told: /(data-plane|I\/O) worker/ },
];
/** Each serves one of the two initiators. */
const victims = ["target_worker.ts", "io_worker.ts"];

for (const { victim, name, told } of victims.flatMap((victim) => faults.map((f) => ({ victim, ...f })))) {
  Deno.test({
    name: `${name} in ${victim} ends the process with 70, and nothing acknowledged is lost`,
    ignore: engineOfRun === "portable", // it has no worker
    fn: async () => {
      const directory = await Deno.makeTempDir({ prefix: "plimsoll-dying-" });
      const file = `${directory}/fault`;
      const choose = random(seed);
      const model = new Model(choose);
      try {
        await using target = await TargetProcess.start({
          directory,
          volumes: [{ name: "vol0", size: "256MiB" }],
          diskSize: "512MiB",
          command: program("dying_target.ts"),
          workers: 2,
          environment: {
            PLIMSOLL_FAULT_WORKER: victim,
            PLIMSOLL_FAULT: name,
            PLIMSOLL_FAULT_FILE: file,
          },
        });
        const initiators = [
          await PlainInitiator.login(target.portals[0], target.iqn()),
          await PlainInitiator.login(target.portals[1], target.iqn()),
        ];
        const writers = initiators.flatMap((i) => Array.from({ length: 6 }, () => writer(i, model)));
        while (model.commands < 50) await pause(20);
        await pause(choose() % 300);
        await Deno.writeTextFile(file, "");
        const ending = await target.ended(endMsMax);
        await Deno.remove(file);
        assert.equal(ending.code, 70, target.log.slice(-2000));
        assert.match(target.log, told);
        await Promise.all(writers);
        for (const i of initiators) await i.close();
        const check = await target.run("disk", "check", target.disk);
        assert.equal(check.code, 0, check.stdout + check.stderr);
        const readyMs = await target.restart();
        await verify(target, model);
        console.log(
          `ended in ${ending.milliseconds} ms, back in ${readyMs} ms; ${model.commands} commands acknowledged, PLIMSOLL_SEED=${seed}`,
        );
        assert.equal((await target.stop()).code, 0);
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
    },
  });
}
