// Without this, any web page or user of the machine could change the group, and a script could not trust an answer.

import { strict as assert } from "node:assert";
import { connect } from "node:net";
import { request } from "node:http";
import { limits } from "../../lib/base/limits.ts";
import type { Log } from "../../lib/base/log.ts";
import { ControlError } from "../../lib/mgmt/control.ts";
import { type AdminServer, startAdminServer } from "../../lib/mgmt/http_server.ts";
import { FakeControl } from "./fake_control.ts";

const token = "ab".repeat(32);

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  // deno-lint-ignore no-explicit-any
  body: any;
}

interface Ask {
  method?: string;
  path: string;
  headers?: Record<string, string>;
  body?: unknown;
  /** Sent as it is instead of `body`. */
  text?: string;
}

class Scene {
  readonly control = new FakeControl();
  readonly logged: string[] = [];
  server!: AdminServer;

  start(hostname = "127.0.0.1"): this {
    const note = (level: string) => (message: string, fields?: object) => {
      this.logged.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
    };
    const log: Log = { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") };
    this.server = startAdminServer({ address: { hostname, port: 0 }, control: this.control, token, log });
    return this;
  }

  ask({ method = "GET", path, headers = {}, body, text }: Ask): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const payload = text ?? (body === undefined ? "" : JSON.stringify(body));
    const { hostname: host, port } = this.server.address;
    const all = {
      ...(payload === ""
        ? {}
        : { "Content-Type": "application/json", "Content-Length": `${payload.length}` }),
      ...headers,
    };
    const req = request({ host, port, method, path, headers: all, agent: false }, (res) => {
      let answer = "";
      res.setEncoding("utf8").on("data", (s: string) => answer += s);
      res.on("end", () => {
        resolve({
          status: res.statusCode!,
          headers: res.headers,
          body: answer === "" ? null : JSON.parse(answer),
        });
      });
    });
    req.on("error", reject);
    req.end(payload);
    return promise;
  }

  change(ask: Ask): Promise<Answer> {
    return this.ask({
      method: "POST",
      ...ask,
      headers: { Authorization: `Bearer ${token}`, ...ask.headers },
    });
  }
}

async function withServer(run: (scene: Scene) => Promise<void>, hostname?: string): Promise<void> {
  const scene = new Scene().start(hostname);
  try {
    await run(scene);
  } finally {
    await scene.server.close();
  }
}

Deno.test("healthz is 200 once portals accept logins, and 503 before", () =>
  withServer(async (scene) => {
    assert.equal((await scene.ask({ path: "/healthz" })).status, 200);
    scene.control.isReady = false;
    const answer = await scene.ask({ path: "/healthz" });
    assert.equal(answer.status, 503);
    assert.deepEqual(answer.body, { ready: false });
  }));

Deno.test("reports need no token and answer JSON that is not cached", () =>
  withServer(async (scene) => {
    const status = await scene.ask({ path: "/api/status" });
    assert.equal(status.status, 200);
    assert.equal(status.body.group, "demo");
    assert.equal(status.headers["cache-control"], "no-store");
    assert.match(String(status.headers["content-type"]), /^application\/json/);
    assert.deepEqual((await scene.ask({ path: "/api/sessions" })).body, []);
    assert.equal((await scene.ask({ path: "/api/volumes" })).body[0].name, "vol0");
    assert.equal((await scene.ask({ path: "/api/volumes/vol0" })).body.name, "vol0");
    const missing = await scene.ask({ path: "/api/volumes/nope" });
    assert.equal(missing.status, 404);
    assert.equal(missing.body.error.kind, "notFound");
    assert.match(missing.body.error.message, /"nope"/);
  }));

Deno.test("a change without the right token changes nothing", () =>
  withServer(async (scene) => {
    const tries: Record<string, string>[] = [
      {},
      { Authorization: "Bearer" },
      { Authorization: "Bearer " },
      { Authorization: `Bearer ${token.slice(1)}` },
      { Authorization: `Bearer ${token}0` },
      { Authorization: `Basic ${token}` },
      { Authorization: token },
    ];
    const changes: Ask[] = [
      { method: "POST", path: "/api/volumes", body: { name: "a", sizeBytes: 4096 } },
      { method: "PATCH", path: "/api/volumes/vol0", body: { writeCache: false } },
      { method: "POST", path: "/api/volumes/vol0/resize", body: { sizeBytes: 4096 } },
      { method: "DELETE", path: "/api/volumes/vol0" },
    ];
    for (const change of changes) {
      for (const headers of tries) {
        const answer = await scene.ask({ ...change, headers });
        assert.equal(answer.status, 401, `${change.method} ${change.path} ${JSON.stringify(headers)}`);
        assert.equal(answer.headers["www-authenticate"], "Bearer");
        assert.equal(answer.body.error.kind, "unauthorized");
      }
    }
    assert.deepEqual(scene.control.calls, []);
  }));

Deno.test("foreign Host and Origin are refused, with and without the token, also for reports", () =>
  withServer(async (scene) => {
    const port = scene.server.address.port;
    for (
      const host of ["evil.example", `evil.example:${port}`, "127.0.0.1", `127.0.0.2:${port}`, "localhost:1"]
    ) {
      for (const path of ["/healthz", "/api/status", "/nothing"]) {
        const answer = await scene.change({ method: "GET", path, headers: { Host: host } });
        assert.equal(answer.status, 403, `${host} ${path}`);
        assert.equal(answer.body.error.kind, "forbidden");
      }
    }
    for (const origin of ["http://evil.example", "null", `https://127.0.0.1:${port}`, "http://127.0.0.1"]) {
      const answer = await scene.change({
        path: "/api/volumes/vol0",
        method: "DELETE",
        headers: { Origin: origin },
      });
      assert.equal(answer.status, 403, origin);
    }
    assert.deepEqual(scene.control.calls, []);
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `LocalHost:${port}`]) {
      const headers = { Host: host, Origin: `http://${host}` };
      assert.equal((await scene.ask({ path: "/api/status", headers })).status, 200, host);
    }
  }));

Deno.test("a request without Host is refused", () =>
  withServer(async (scene) => {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const socket = connect(scene.server.address.port, "127.0.0.1", () => {
      socket.write("GET /api/status HTTP/1.0\r\n\r\n");
    });
    let text = "";
    socket.setEncoding("utf8").on("data", (s: string) => text += s).on("error", reject);
    socket.on("end", () => {
      socket.destroy();
      resolve(text);
    });
    assert.match(await promise, /^HTTP\/1\.. (400|403)/);
  }));

Deno.test("it serves on ::1 under that name", () =>
  withServer(async (scene) => {
    const port = scene.server.address.port;
    assert.equal((await scene.ask({ path: "/api/status", headers: { Host: `[::1]:${port}` } })).status, 200);
    assert.equal(
      (await scene.ask({ path: "/api/status", headers: { Host: `127.0.0.1:${port}` } })).status,
      403,
    );
  }, "::1"));

Deno.test("an address that is not loopback is refused without TLS", () => {
  const control = new FakeControl();
  const log: Log = { debug() {}, info() {}, warn() {}, error() {} };
  for (const hostname of ["0.0.0.0", "::", "192.0.2.1", "localhost", "127.evil.example.com", "1270.0.0.1"]) {
    assert.throws(
      () => startAdminServer({ address: { hostname, port: 0 }, control, token, log }),
      /must be a loopback address/,
      hostname,
    );
  }
});

Deno.test("an address in use is told with what to do", () =>
  withServer((scene) => {
    const log: Log = { debug() {}, info() {}, warn() {}, error() {} };
    assert.throws(
      () => startAdminServer({ address: scene.server.address, control: scene.control, token, log }),
      /Cannot serve the admin API on 127\.0\.0\.1:\d+: .*another port/,
    );
    return Promise.resolve();
  }));

Deno.test("changes reach the member as they were sent", () =>
  withServer(async (scene) => {
    const creation = {
      name: "vol1",
      sizeBytes: 10 * 1024 ** 3,
      blockBytes: 4096,
      initiators: ["iqn.2026-01.*"],
      chap: { user: "u", secret: "a secret of some length" },
      mutual: { user: "m", secret: "another secret" },
      writeCache: false,
    };
    const made = await scene.change({ path: "/api/volumes", body: creation });
    assert.equal(made.status, 201);
    assert.equal(made.body.name, "vol1");
    const change = { initiators: null, chap: null, writeProtected: true };
    assert.equal(
      (await scene.change({ method: "PATCH", path: "/api/volumes/vol1", body: change })).status,
      200,
    );
    const grown = await scene.change({ path: "/api/volumes/vol1/resize", body: { sizeBytes: 2 ** 40 } });
    assert.equal(grown.body.sizeBytes, 2 ** 40);
    const gone = await scene.change({ method: "DELETE", path: "/api/volumes/vol1" });
    assert.equal(gone.status, 204);
    assert.equal(gone.body, null);
    assert.deepEqual(scene.control.calls, [
      ["create", creation],
      ["set", "vol1", change],
      ["resize", "vol1", 2 ** 40],
      ["delete", "vol1"],
    ]);
  }));

Deno.test("a body of the wrong shape is refused and the complaint names the key, never a secret", () =>
  withServer(async (scene) => {
    const secret = "tell-nobody-this-secret";
    const bad: [Ask, RegExp][] = [
      [{ path: "/api/volumes", body: {} }, /"name".*"sizeBytes"/],
      [{ path: "/api/volumes", body: { name: "a", sizeBytes: "4GiB" } }, /"sizeBytes"/],
      [{ path: "/api/volumes", body: { name: "a", sizeBytes: 0.5 } }, /"sizeBytes"/],
      [{ path: "/api/volumes", body: { name: "a", sizeBytes: -1 } }, /"sizeBytes"/],
      [{ path: "/api/volumes", body: { name: "a", sizeBytes: 1e300 } }, /"sizeBytes"/],
      [{ path: "/api/volumes", body: { name: "a", sizeBytes: 512, blockBytes: 520 } }, /"blockBytes"/],
      [{ path: "/api/volumes", body: { name: "a", sizeBytes: 512, size: 1 } }, /"size"/],
      [{ path: "/api/volumes", body: [] }, /expected object/],
      [{ path: "/api/volumes", body: null }, /expected object/],
      [{ path: "/api/volumes", text: `{"chap": ${secret}` }, /not JSON/],
      [
        { path: "/api/volumes/vol0", method: "PATCH", body: { chap: { user: "u", secret: [secret] } } },
        /chap\.secret/,
      ],
      [{ path: "/api/volumes/vol0", method: "PATCH", body: { chap: secret } }, /"chap"/],
      [{ path: "/api/volumes/vol0", method: "PATCH", body: { initiators: "iqn.*" } }, /"initiators"/],
      [
        { path: "/api/volumes/vol0", method: "PATCH", body: { initiators: Array(129).fill("iqn.a") } },
        /"initiators"/,
      ],
      [{ path: "/api/volumes/vol0/resize", body: { sizeBytes: null } }, /"sizeBytes"/],
      [{ path: "/api/members/beta/drain?purpose=fun", method: "PUT" }, /purpose=leave or purpose=restart/],
    ];
    for (const [ask, message] of bad) {
      const answer = await scene.change(ask);
      assert.equal(answer.status, 400, JSON.stringify(ask));
      assert.equal(answer.body.error.kind, "invalid");
      assert.match(answer.body.error.message, message);
      assert.ok(!JSON.stringify(answer.body).includes(secret), "the secret came back in the answer");
    }
    assert.deepEqual(scene.control.calls, []);
    assert.ok(!scene.logged.join("\n").includes(secret), "the secret was logged");
  }));

Deno.test("secrets that are accepted appear in no answer and no log", () =>
  withServer(async (scene) => {
    const secret = "tell-nobody-this-secret";
    const body = { chap: { user: "u", secret } };
    const answer = await scene.change({ method: "PATCH", path: "/api/volumes/vol0", body });
    assert.equal(answer.status, 200);
    assert.equal(answer.body.chapUser, "u");
    scene.control.failure = new Error(`boom ${secret}`);
    const failed = await scene.change({ method: "PATCH", path: "/api/volumes/vol0", body });
    assert.equal(failed.status, 500);
    const status = await scene.ask({ path: "/api/status" });
    for (const text of [answer, failed, status].map((a) => JSON.stringify(a.body))) {
      assert.ok(!text.includes(secret));
    }
    const changes = scene.logged.filter((line) => line.startsWith("info admin change"));
    assert.equal(changes.length, 2, "every change is logged once");
    assert.ok(changes.every((line) => !line.includes(secret)));
    assert.ok(!scene.logged.join("\n").includes(token), "the token was logged");
  }));

Deno.test("what the member refuses has its HTTP status", () =>
  withServer(async (scene) => {
    for (
      const [kind, status] of [["invalid", 400], ["notFound", 404], ["conflict", 409], ["noSpace", 507], [
        "unavailable",
        503,
      ]] as const
    ) {
      scene.control.failure = new ControlError(kind, `because of ${kind}`);
      const answer = await scene.change({ method: "DELETE", path: "/api/volumes/vol0" });
      assert.equal(answer.status, status);
      assert.deepEqual(answer.body, { error: { kind, message: `because of ${kind}` } });
    }
  }));

Deno.test("wrong paths, methods, types and sizes have their answers, and the server goes on", () =>
  withServer(async (scene) => {
    assert.equal((await scene.ask({ path: "/" })).status, 404);
    assert.equal((await scene.change({ method: "PUT", path: "/api/volumes" })).status, 405);
    assert.equal((await scene.change({ method: "DELETE", path: "/api/status" })).status, 405);
    assert.equal((await scene.ask({ path: "/api/volumes/vol0/resize" })).status, 405);
    const plain = await scene.change({
      path: "/api/volumes",
      body: { name: "a", sizeBytes: 512 },
      headers: { "Content-Type": "text/plain" },
    });
    assert.equal(plain.status, 415);
    assert.equal((await scene.change({ path: "/api/volumes" })).status, 415);
    const big = await scene.change({ path: "/api/volumes", text: "[".repeat(limits.adminBodyBytesMax + 1) });
    assert.equal(big.status, 413);
    const odd = await scene.ask({ path: "/api/volumes/%E0%A4%A" });
    assert.ok(odd.status === 400 || odd.status === 404);
    assert.equal((await scene.ask({ path: "/healthz" })).status, 200);
    assert.deepEqual(scene.control.calls, []);
  }));

Deno.test("no more than adminRequestsMax requests run at a time", () =>
  withServer(async (scene) => {
    const gate = Promise.withResolvers<void>();
    const status = await scene.control.status();
    let running = 0;
    const full = Promise.withResolvers<void>();
    scene.control.status = async () => {
      if (++running === limits.adminRequestsMax) full.resolve();
      await gate.promise;
      return status;
    };
    const held = Array.from({ length: limits.adminRequestsMax }, () => scene.ask({ path: "/api/status" }));
    await full.promise;
    assert.equal((await scene.ask({ path: "/api/status" })).status, 503);
    gate.resolve();
    for (const answer of await Promise.all(held)) assert.equal(answer.status, 200);
    assert.equal((await scene.ask({ path: "/api/status" })).status, 200);
  }));
