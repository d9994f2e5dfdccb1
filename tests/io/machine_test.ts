// Without this, what the balancer and short cuts believe of the network interfaces could come from nowhere.

import { strict as assert } from "node:assert";
import { systemMachine } from "../../lib/io/machine.ts";

Deno.test("what an interface has sent is counted", { ignore: Deno.build.os !== "linux" }, async () => {
  // Lost without it: an interface that is busy looks free.
  const machine = systemMachine(() => performance.now());
  const before = machine.sentBytes("127.0.0.1");
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const client = await Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port });
  const server = await listener.accept();
  await client.write(new Uint8Array(10_000));
  assert.ok(machine.sentBytes("127.0.0.1") >= before + 10_000);
  for (const one of [client, server, listener]) one.close();
  assert.equal(machine.sentBytes("192.0.2.1"), 0, "no interface has it");
});
