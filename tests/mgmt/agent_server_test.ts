// Without this, a monitor could take a host without its disk for healthy, and a web page could read what the host agent knows.

import { strict as assert } from "node:assert";
import { request } from "node:http";
import { silentLog } from "../../lib/base/log.ts";
import { startAgentServer } from "../../lib/mgmt/agent_server.ts";
import { FakeAgent } from "./fake_agent.ts";

Deno.test("a host agent answers how it is, to nobody but this machine's programs, and takes no change", async () => {
  const control = new FakeAgent();
  const address = { hostname: "127.0.0.1", port: 0 };
  const server = startAgentServer({ address, control, log: silentLog });
  const ask = (path: string, method = "GET", headers: Record<string, string> = {}) => {
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: unknown }>();
    const { hostname: host, port } = server.address;
    const asked = request({ host, port, method, path, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (more: string) => text += more);
      response.on("end", () => resolve({ status: response.statusCode!, body: JSON.parse(text) }));
    });
    asked.on("error", reject).end();
    return promise;
  };
  try {
    assert.deepEqual(await ask("/healthz"), { status: 200, body: { ready: true, problems: [] } });
    assert.deepEqual(await ask("/api/status"), { status: 200, body: control.told });
    control.told.problems.push("iscsid does not run.");
    control.told.volumes[0]!.problems.push("The group is away.");
    const problems = ["iscsid does not run.", "The group is away."];
    assert.deepEqual(await ask("/healthz"), { status: 503, body: { ready: false, problems } });

    const kindOf = async (asked: ReturnType<typeof ask>) => {
      const { status, body } = await asked;
      const { kind, message } = (body as { error: { kind: string; message: string } }).error;
      return `${status} ${kind}: ${message}`;
    };
    assert.match(await kindOf(ask("/healthz", "GET", { Host: "evil.example" })), /^403 forbidden/);
    assert.match(
      await kindOf(ask("/api/status", "GET", { Origin: "http://evil.example" })),
      /^403 forbidden/,
    );
    assert.match(await kindOf(ask("/api/status", "POST")), /^405 method/);
    assert.match(await kindOf(ask("/api/volumes")), /^404 notFound: .*is a host agent.*Ask a member/);
    assert.match(await kindOf(ask("/api/volumes/vol0", "DELETE")), /^404 notFound/);
  } finally {
    await server.close();
  }
  assert.throws(
    () => startAgentServer({ address: { hostname: "10.0.0.1", port: 3283 }, control, log: silentLog }),
    /Cannot serve the admin API on 10.0.0.1:3283.*Set \[agent\] admin to "127.0.0.1:3283"/,
  );
});
