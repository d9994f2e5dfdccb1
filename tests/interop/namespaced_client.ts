// The client of short_cut_client.ts on a machine of its own (namespaces.ts).

import { strict as assert } from "node:assert";
import type { Namespaces } from "./namespaces.ts";
import type { ClientOrder, ClientReport } from "./short_cut_client.ts";
import { root } from "./target_process.ts";

/** Starts it; what it tells in the end. Rejects when it fails. */
export async function runClient(
  machines: Namespaces,
  machine: string,
  order: ClientOrder,
): Promise<ClientReport> {
  const { code, stdout, stderr } = await new Deno.Command("ip", {
    // deno-fmt-ignore
    args: ["netns", "exec", machines.of(machine), Deno.execPath(), "run", "-A", "--quiet", "--no-check", `${root}tests/interop/short_cut_client.ts`, JSON.stringify(order)],
    stdin: "null",
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout)) as ClientReport;
}
