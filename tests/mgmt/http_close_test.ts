// Without this, a request whose body never comes ends the process in the middle of its stop, before the disks are flushed.

import { strict as assert } from "node:assert";
import { silentLog } from "../../lib/base/log.ts";
import { startAdminServer } from "../../lib/mgmt/http_server.ts";
import { FakeControl } from "./fake_control.ts";

Deno.test("close ends although requests have come by half", async () => {
  const token = "t".repeat(43);
  const server = startAdminServer({
    address: { hostname: "127.0.0.1", port: 0 },
    control: new FakeControl(),
    token,
    log: silentLog,
  });
  const { hostname, port } = server.address;
  const connections: Deno.Conn[] = [];
  const head = `PATCH /api/volumes/vol0 HTTP/1.1\r\nHost: ${hostname}:${port}\r\n` +
    `Authorization: Bearer ${token}\r\nContent-Type: application/json\r\n`;
  for (
    const text of [
      `${head}Content-Length: 100\r\n\r\n{`,
      "GET /he",
      `${head}Transfer-Encoding: chunked\r\n\r\n9`,
    ]
  ) {
    const connection = await Deno.connect({ hostname, port });
    await connection.write(new TextEncoder().encode(text));
    connections.push(connection);
  }
  await fetch(`http://${hostname}:${port}/healthz`).then((answer) => answer.body?.cancel());
  await server.close();
  for (const connection of connections) connection.close();
  await assert.rejects(Deno.connect({ hostname, port }));
});
