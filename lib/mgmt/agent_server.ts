// The admin API of a host agent: how it is, and nothing to change. docs/api.md describes it for callers.

import type { Log } from "../base/log.ts";
import type { SocketAddress } from "../base/network.ts";
import { type AgentControl, problemsOf } from "./agent_control.ts";
import { type AdminServer, refuseMethod, startListener } from "./http_listener.ts";

export interface AgentServerOptions {
  /** Literal loopback address; port 0 takes a free one. */
  readonly address: SocketAddress;
  readonly control: AgentControl;
  readonly log: Log;
}

/** Throws when the address is not loopback or cannot be bound. */
export function startAgentServer({ control, ...options }: AgentServerOptions): AdminServer {
  return startListener({
    ...options,
    token: null,
    role: "agent",
    elsewhere:
      "This is a host agent, which answers /healthz and /api/status only. Ask a member of the group.",
    addRoutes(app) {
      app.get("/healthz", async (c) => {
        const problems = problemsOf(await control.report());
        const ready = problems.length === 0;
        return c.json({ ready, problems }, ready ? 200 : 503);
      });
      app.get("/api/status", async (c) => c.json(await control.report()));
      for (const path of ["/healthz", "/api/status"]) app.all(path, (c) => refuseMethod(c));
    },
  });
}
