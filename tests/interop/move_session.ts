// Called by a guest (hostcall) on the host: moves the one session of the group to the next member, and waits until it is
// there. MEMBERS: JSON, [[name, admin address, token file]…].

import type { SessionReport } from "../../lib/mgmt/control.ts";
import { pause } from "./target_process.ts";

const members = JSON.parse(Deno.env.get("MEMBERS")!) as [string, string, string][];

async function holder(): Promise<{ index: number; id: number } | null> {
  for (const [index, [, admin]] of members.entries()) {
    const sessions: SessionReport[] = await (await fetch(`http://${admin}/api/sessions`)).json();
    const own = sessions.find(({ volume }) => volume !== "(discovery)");
    if (own !== undefined) return { index, id: own.id };
  }
  return null;
}

const from = await holder();
if (from === null) throw new Error("nobody is logged in");
const to = (from.index + 1) % members.length;
const [, admin, tokenFile] = members[from.index]!;
for (let tries = 0;; tries++) {
  const answer = await fetch(`http://${admin}/api/sessions/${from.id}/move`, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Authorization: `Bearer ${(await Deno.readTextFile(tokenFile)).trim()}`,
    },
    body: JSON.stringify({ to: members[to]![0] }),
  });
  if (answer.ok) break;
  if (tries === 20) throw new Error(await answer.text());
  await answer.body?.cancel();
  await pause(500);
}
for (let tries = 0; (await holder())?.index !== to; tries++) {
  if (tries === 300) throw new Error(`the session did not come to ${members[to]![0]}`);
  await pause(200);
}
