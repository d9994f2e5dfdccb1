// Without this, an interface that comes up after the start of the member stays without a portal for ever.

import { strict as assert } from "node:assert";
import type { Clock } from "../../lib/base/clock.ts";
import { silentLog } from "../../lib/base/log.ts";
import type { Network } from "../../lib/base/network.ts";
import { Portals } from "../../lib/roles/target/portals.ts";

function world(failures: (string | null)[]) {
  const timers: (() => void)[] = [];
  const clock: Clock = {
    nowMs: () => 0,
    wallMs: () => 0,
    after: (_ms, fn) => {
      timers.push(fn);
      return { cancel: () => timers.splice(timers.indexOf(fn), 1) };
    },
  };
  let closed = 0;
  const network = {
    listen: (address) => {
      const failure = failures.shift() ?? null;
      if (failure !== null) return Promise.reject(new Error(failure));
      return Promise.resolve({ address, close: () => Promise.resolve(void closed++) });
    },
    connect: () => Promise.reject(new Error("unused")),
  } satisfies Network;
  const portals = new Portals(network, clock, silentLog, () => null);
  return { portals, timers, closed: () => closed };
}

const address = { hostname: "10.9.9.9", port: 3260 };
const settle = () => new Promise<void>((resolve) => queueMicrotask(() => queueMicrotask(resolve)));

Deno.test("an address that is not there yet is tried again until it is", async () => {
  const { portals, timers, closed } = world([
    "Can't assign requested address",
    "Can't assign requested address",
  ]);
  await portals.open(address);
  assert.deepEqual(portals.states(), [{
    address,
    state: "waiting",
    reason: "Can't assign requested address",
  }]);
  timers.shift()!();
  await settle();
  assert.equal(portals.states()[0]!.state, "waiting");
  timers.shift()!();
  await settle();
  assert.deepEqual(portals.states(), [{ address, state: "listening" }]);
  assert.ok(portals.has(address));
  await portals.close();
  assert.equal(closed(), 1);
});

Deno.test("a port that another program has is refused at once, with what to do", async () => {
  const { portals, timers } = world(["Address already in use (os error 98)"]);
  await assert.rejects(portals.open(address), /Cannot listen on portal 10\.9\.9\.9:3260.*in use.*ss -ltnp/s);
  assert.equal(timers.length, 0);
  assert.deepEqual(portals.states(), []);
});

Deno.test("closing ends the waiting", async () => {
  const { portals, timers } = world(["Can't assign requested address"]);
  await portals.open(address);
  await portals.close();
  assert.equal(timers.length, 0);
});
