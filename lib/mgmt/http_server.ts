// The admin API of a member: JSON over HTTP on a loopback address, for the command line, scripts and monitors.
// docs/api.md describes it for callers. It knows the member only as a MemberControl.

import { type Context, Hono } from "hono";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import { formatSocketAddress, type SocketAddress } from "../base/network.ts";
import { isLoopback } from "../config/address.ts";
import { drainPurposes } from "../meta/records.ts";
import { ControlError, type MemberControl } from "./control.ts";
import { acceptedHosts, hostProblem, tokenMatches } from "./http_guard.ts";
import {
  type Parsed,
  parseMove,
  parsePolicy,
  parseResize,
  parseVolumeChange,
  parseVolumeCreation,
} from "./http_requests.ts";

export interface AdminServerOptions {
  /** Literal loopback address; port 0 takes a free one. */
  readonly address: SocketAddress;
  readonly control: MemberControl;
  /** What changes must carry as `Authorization: Bearer`. */
  readonly token: string;
  readonly log: Log;
}

export interface AdminServer {
  /** What was bound, with the real port. */
  readonly address: SocketAddress;
  /** Stops listening; requests that run get a second to end. */
  close(): Promise<void>;
}

/** Kinds of `{error: {kind, message}}`, with their HTTP status. */
const statusOf = Object.freeze({
  invalid: 400,
  unauthorized: 401,
  forbidden: 403,
  notFound: 404,
  method: 405,
  timeout: 408,
  conflict: 409,
  tooLarge: 413,
  mediaType: 415,
  internal: 500,
  unavailable: 503,
  noSpace: 507,
});
export type ErrorKind = keyof typeof statusOf;

const closeTimeMs = 1_000;

/** An answer other than success. */
class Refusal extends Error {
  constructor(readonly kind: ErrorKind, message: string) {
    super(message);
  }
}

/** Throws when the address is not loopback or cannot be bound. */
export function startAdminServer(options: AdminServerOptions): AdminServer {
  const { address, log } = options;
  const text = formatSocketAddress(address);
  if (!isLoopback(address)) {
    throw new Error(
      `Cannot serve the admin API on ${text}: without TLS it must be a loopback address. ` +
        `Set [member] admin to "127.0.0.1:${address.port}" and reach it from elsewhere through ssh -L.`,
    );
  }
  let hosts: ReadonlySet<string> = new Set();
  const abort = new AbortController();
  const traffic = new Traffic();
  const app = routes(options, () => hosts, traffic);
  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = Deno.serve({
      hostname: address.hostname,
      port: address.port,
      signal: abort.signal,
      onListen() {},
    }, (request, info) => {
      traffic.add(info.completed);
      return app.fetch(request);
    });
  } catch (error) {
    throw new Error(
      `Cannot serve the admin API on ${text}: ${(error as Error).message}. ` +
        `Stop what uses the address, or set [member] admin to another port.`,
    );
  }
  const bound = { hostname: address.hostname, port: server.addr.port };
  hosts = acceptedHosts(bound);
  log.debug("admin API listens", { address: formatSocketAddress(bound) });
  return {
    address: bound,
    async close() {
      // Not server.shutdown(): it waits for bodies that never come, and abort() after it throws (Deno 2.9).
      await traffic.end(closeTimeMs);
      abort.abort();
      await server.finished;
    },
  };
}

/** The requests whose answers have not left. */
class Traffic {
  ending = false;
  #running = 0;
  #ended: () => void = () => {};

  /** A request, until `answered` settles. */
  add(answered: Promise<void>): void {
    this.#running++;
    answered.catch(() => {}).finally(() => {
      this.#running--;
      if (this.#running === 0) this.#ended();
    });
  }

  /** Lets no more in; resolves when none runs, at the latest after `timeMs`. */
  async end(timeMs: number): Promise<void> {
    this.ending = true;
    if (this.#running === 0) return;
    const ended = new Promise<void>((resolve) => this.#ended = resolve);
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([ended, new Promise<void>((resolve) => timer = setTimeout(resolve, timeMs))]);
    clearTimeout(timer);
  }
}

function routes(
  { control, token, log }: AdminServerOptions,
  hosts: () => ReadonlySet<string>,
  traffic: Traffic,
): Hono {
  const app = new Hono();
  let running = 0;

  app.use("*", async (c, next) => {
    const problem = hostProblem(hosts(), c.req.header("host") ?? null, c.req.header("origin") ?? null);
    if (problem !== null) throw new Refusal("forbidden", problem);
    if (traffic.ending) throw new Refusal("unavailable", "The member is stopping.");
    if (running >= limits.adminRequestsMax) {
      throw new Refusal(
        "unavailable",
        `${running} admin requests are running already. Try again in a moment.`,
      );
    }
    const isChange = c.req.method !== "GET" && c.req.method !== "HEAD";
    const authorization = c.req.header("authorization") ?? null;
    if (isChange && !tokenMatches(token, authorization)) {
      c.header("WWW-Authenticate", "Bearer");
      throw new Refusal(
        "unauthorized",
        authorization === null
          ? "A change needs the header Authorization: Bearer TOKEN, with the token in state_dir/admin.token of this member."
          : "The token that came with this change is not this member's. It is in state_dir/admin.token of this member.",
      );
    }
    running++;
    try {
      await next();
    } finally {
      running--;
    }
    c.header("Cache-Control", "no-store");
    c.header("X-Content-Type-Options", "nosniff");
    if (isChange) log.info("admin change", { method: c.req.method, path: c.req.path, status: c.res.status });
  });

  app.get("/healthz", (c) => {
    const ready = control.ready();
    return c.json({ ready }, ready ? 200 : 503);
  });
  app.get("/api/status", async (c) => c.json(await control.status()));
  app.get("/api/members", async (c) => c.json(await control.members()));
  app.put("/api/members/:name/drain", async (c) => {
    const asked = c.req.query("purpose") ?? "leave";
    const purpose = drainPurposes.find((one) => one === asked);
    if (purpose === undefined) {
      throw new Refusal("invalid", `A member is drained with purpose=${drainPurposes.join(" or purpose=")}.`);
    }
    await control.drainMember(c.req.param("name"), purpose);
    return c.body(null, 204);
  });
  app.delete("/api/members/:name/drain", async (c) => {
    await control.drainMember(c.req.param("name"), null);
    return c.body(null, 204);
  });
  app.delete("/api/members/:name", async (c) => {
    await control.removeMember(c.req.param("name"));
    return c.body(null, 204);
  });
  app.get("/api/sessions", async (c) => c.json(await control.sessions()));
  app.get("/api/volumes", async (c) => c.json((await control.status()).volumes));
  app.post("/api/volumes", async (c) => {
    return c.json(await control.createVolume(valueOf(parseVolumeCreation(await jsonBody(c)))), 201);
  });
  app.get("/api/volumes/:name", async (c) => {
    const name = c.req.param("name");
    const volume = (await control.status()).volumes.find((v) => v.name === name);
    if (volume === undefined) throw new Refusal("notFound", noSuchVolume(name));
    return c.json(volume);
  });
  app.patch("/api/volumes/:name", async (c) => {
    return c.json(
      await control.setVolume(c.req.param("name"), valueOf(parseVolumeChange(await jsonBody(c)))),
    );
  });
  app.get("/api/volumes/:name/route", async (c) => c.json(await control.route(c.req.param("name"))));
  app.post("/api/volumes/:name/resize", async (c) => {
    const { sizeBytes } = valueOf(parseResize(await jsonBody(c)));
    return c.json(await control.resizeVolume(c.req.param("name"), sizeBytes));
  });
  app.delete("/api/volumes/:name", async (c) => {
    await control.deleteVolume(c.req.param("name"));
    return c.body(null, 204);
  });
  app.post("/api/sessions/:id/move", async (c) => {
    const id = c.req.param("id");
    const { to, live } = valueOf(parseMove(await jsonBody(c)));
    if (!/^[0-9]{1,15}$/.test(id)) throw new Refusal("notFound", `There is no session "${id}".`);
    return c.json(await control.moveSession(Number(id), to, live === true));
  });
  app.get("/api/balance", async (c) => c.json(await control.balance()));
  app.post("/api/balance/run", async (c) => c.json({ move: await control.runBalance() }));
  app.post("/api/balance/policy", async (c) => {
    await control.setBalancePolicy(valueOf(parsePolicy(await jsonBody(c))).policy);
    return c.body(null, 204);
  });
  for (const path of ["/api/sessions/:id/move", "/api/balance", "/api/balance/run", "/api/balance/policy"]) {
    app.all(path, (c) => refuseMethod(c));
  }
  for (const path of ["/healthz", "/api/status", "/api/members", "/api/sessions", "/api/volumes"]) {
    app.all(path, (c) => refuseMethod(c));
  }
  app.all("/api/members/:name", (c) => refuseMethod(c));
  app.all("/api/members/:name/drain", (c) => refuseMethod(c));
  app.all("/api/volumes/:name", (c) => refuseMethod(c));
  app.all("/api/volumes/:name/resize", (c) => refuseMethod(c));
  app.all("/api/volumes/:name/route", (c) => refuseMethod(c));

  app.notFound((c) =>
    answer(c, "notFound", `There is nothing at ${c.req.path}. docs/api.md lists the paths.`)
  );
  app.onError((error, c) => {
    if (error instanceof Refusal || error instanceof ControlError) {
      return answer(c, error.kind, error.message);
    }
    log.error("admin request failed", { method: c.req.method, path: c.req.path, reason: error.message });
    return answer(
      c,
      "internal",
      `Cannot ${c.req.method} ${c.req.path}: internal error. The member's log says more.`,
    );
  });
  return app;
}

export function noSuchVolume(name: string): string {
  return `There is no volume "${name}". "plimsoll volume list" shows those there are.`;
}

function answer(c: Context, kind: ErrorKind, message: string): Response {
  return c.json({ error: { kind, message } }, statusOf[kind]);
}

function refuseMethod(c: Context): never {
  throw new Refusal(
    "method",
    `${c.req.path} does not take ${c.req.method}. docs/api.md lists what it takes.`,
  );
}

function valueOf<T>(parsed: Parsed<T>): T {
  if (!parsed.ok) throw new Refusal("invalid", parsed.message);
  return parsed.value;
}

/** Reads a JSON body under the limits of size and time. */
async function jsonBody(c: Context): Promise<unknown> {
  const type = c.req.header("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new Refusal(
      "mediaType",
      `Cannot use a body of type "${type}". Send Content-Type: application/json.`,
    );
  }
  const text = await bodyText(c.req.raw);
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal("invalid", "Cannot use the request body: it is not JSON."); // the parser's message quotes it
  }
}

function cutOff(): never {
  throw new Refusal("invalid", "The request body ended before it was complete.");
}

async function bodyText(request: Request): Promise<string> {
  const reader = request.body?.getReader();
  if (reader === undefined) return "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        new Refusal("timeout", `The request body took more than ${limits.adminBodyTimeMsMax} ms to arrive.`),
      );
    }, limits.adminBodyTimeMsMax);
  });
  late.catch(() => {});
  const bytes = new Uint8Array(limits.adminBodyBytesMax);
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read().catch(cutOff), late]);
      if (done) return new TextDecoder().decode(bytes.subarray(0, length));
      if (length + value.length > bytes.length) {
        throw new Refusal("tooLarge", `The request body is larger than ${limits.adminBodyBytesMax} bytes.`);
      }
      bytes.set(value, length);
      length += value.length;
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}
