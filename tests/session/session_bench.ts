// What the session machine costs for one command, without sockets and disks: deno run -A tests/session/session_bench.ts
// The device server answers at once; the stream lets everything go after each batch.

import type { SendRelease } from "../../lib/base/network.ts";
import type { Task } from "../../lib/session/task.ts";
import { FakeWorld } from "./fake_world.ts";
import { build, textData } from "./pdus.ts";

const world = new FakeWorld();
const stream = world.connect()!;
const device = world.device;
const dataInReady = (task: Task) => {
  task.dataInLength = 4096;
  task.finish(0);
};
device.execute = (task) => {
  if (task.readExpected) task.takeDataIn(4096, dataInReady);
  else task.requestData(4096);
};
device.dataReceived = (task) => task.finish(0);
const names = [
  "InitiatorName=iqn.2026-11.net.plimsoll.test:host",
  "TargetName=iqn.2026-11.net.plimsoll.test:vol0",
];
const fields = { currentStage: 1, nextStage: 3, transit: 1, isid: 1, cmdSn: 1 };
stream.deliver(
  build({ kind: "login", fields, data: textData([...names, "MaxRecvDataSegmentLength=262144"]) }),
);
stream.takeOutput();

let releases: (SendRelease | null)[] = [];
stream.send = (_buffer, _start, _length, release) => void releases.push(release);

let cmdSn = 1;
function run(kind: "read" | "write", commands: number, batch: number): void {
  const data = kind === "write" ? { data: new Uint8Array(4096) } : {};
  const pdu = build({ kind: "command", fields: { [kind]: 1, expectedDataTransferLength: 4096 }, ...data });
  const buffer = new Uint8Array(pdu.length * batch);
  const view = new DataView(buffer.buffer);
  for (let i = 0; i < batch; i++) buffer.set(pdu, i * pdu.length);
  const begin = performance.now();
  for (let n = 0; n < commands; n += batch) {
    for (let i = 0; i < batch; i++) {
      view.setUint32(i * pdu.length + 24, cmdSn++);
      view.setUint32(i * pdu.length + 16, i + 1);
    }
    stream.handler!.received(buffer, view, 0, buffer.length);
    const gone = releases;
    releases = [];
    for (const release of gone) release?.released();
  }
  const microseconds = (performance.now() - begin) * 1000 / commands;
  console.log(`${kind} 4 KiB, batches of ${batch}: ${microseconds.toFixed(2)} us a command`);
}

for (let round = 0; round < 3; round++) {
  run("read", 1_000_000, 32);
  run("write", 500_000, 32);
  run("read", 500_000, 1);
}
