// A host agent that is well, for tests of those who ask it.

import type { AgentControl, AgentReport } from "../../lib/mgmt/agent_control.ts";

export class FakeAgent implements AgentControl {
  told: AgentReport = {
    role: "host-agent",
    group: "demo",
    host: "host7",
    version: "0.1.0",
    uptimeMs: 65_000,
    problems: [],
    volumes: [{
      name: "vol0",
      problems: [],
      lastProblem: { message: "It was so.", agoMs: 60_000 },
      learned: {
        epoch: 12,
        sizeBytes: 24 * 2 ** 20,
        pageBytes: 2 ** 20,
        writeCache: false,
        writeProtected: false,
        agoMs: 3_000,
      },
      device: { path: "/dev/mapper/plimsoll-vol0", sizeBytes: 24 * 2 ** 20, readOnly: false, epoch: 12 },
      legs: [
        {
          member: "alpha",
          map: "plimsoll-vol0:alpha",
          regions: 16,
          state: "home",
          paths: [
            { member: "alpha", portal: "10.0.0.1:3260", disk: "sda", state: "active" },
            { member: "beta", portal: "10.0.0.2:3260", disk: "sdb", state: "failed" },
          ],
        },
        {
          member: "beta",
          map: "plimsoll-vol0:beta",
          regions: 8,
          state: "fallback",
          paths: [{ member: "alpha", portal: "10.0.0.1:3260", disk: "sda", state: "active" }],
        },
      ],
      logins: [],
    }],
  };

  report(): Promise<AgentReport> {
    return Promise.resolve(this.told);
  }
}
