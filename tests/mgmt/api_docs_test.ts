// Without this, docs/api.md would miss what reports tell.

import { strict as assert } from "node:assert";
import type { BalanceOpinion, MemberReport, ProxiedVolume, SessionReport } from "../../lib/mgmt/control.ts";
import type { AgentVolumeReport } from "../../lib/mgmt/agent_control.ts";
import { FakeAgent } from "./fake_agent.ts";
import { FakeControl } from "./fake_control.ts";

const page = await Deno.readTextFile(new URL("../../docs/api.md", import.meta.url));

/** Keys of objects in it, at any depth; not those of a Record by member's name. */
function keysOf(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(keysOf);
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => [
    key,
    ...(byMember.has(key) ? [] : keysOf(inner)),
  ]);
}

const byMember = new Set(["allocated", "servedAt"]);

// What the fake member has none of. The compiler sees to it that no key is left out.
const session: SessionReport = {
  id: 1,
  initiator: "",
  volume: "",
  member: "",
  portal: "",
  remote: "",
  commands: 0,
  bytes: 0,
  forwarded: 0,
  shortcut: 0,
  multipathId: null,
  commandsPerS: 0,
  bytesPerS: 0,
  servedAt: {},
};
const opinion: BalanceOpinion = {
  session: 1,
  initiator: "",
  volume: "",
  to: "",
  verdict: "stay",
  total: 0,
  terms: [{ name: "", value: 0, why: "" }],
};
const drain: Required<NonNullable<MemberReport["drain"]>> = {
  purpose: "leave",
  ready: { staying: 0 },
  pagesLeft: 0,
  leftMs: null,
};
const path: Required<ProxiedVolume["paths"][number]> = {
  member: "",
  portal: "",
  initiatorPort: 1,
  state: "open",
  reason: "",
  inFlight: 0,
  commands: 0,
};
const proxied: Required<ProxiedVolume> = {
  name: "",
  state: "online",
  reason: "",
  epoch: 1,
  sizeBytes: 0,
  pages: {},
  held: 0,
  paths: [path],
};

const login: AgentVolumeReport["logins"][number] = { portal: "", member: "", reason: "" };

Deno.test("every key of every report is told of", async () => {
  const control = new FakeControl();
  const reports = {
    status: [await control.status(), { proxied: [proxied] }],
    members: [await control.members(), drain],
    sessions: session,
    balance: [await control.balance(), opinion],
    route: await control.route("vol0"),
    agent: [await new FakeAgent().report(), { logins: login }],
  };
  for (const [name, report] of Object.entries(reports)) {
    const missing = [...new Set(keysOf(report))].filter((key) => !new RegExp(`\\b${key}\\b`).test(page));
    assert.deepEqual(missing, [], name);
  }
});
