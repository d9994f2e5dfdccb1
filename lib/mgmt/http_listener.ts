// What every admin API has in common: JSON over HTTP on a loopback address, who may ask (http_guard.ts), how much at a time, the
// form of errors, and how it ends. What there is to ask, http_server.ts and agent_server.ts say.

import { type Context, Hono } from "hono";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import { formatSocketAddress, type SocketAddress } from "../base/network.ts";
import { isLoopback } from "../config/address.ts";
import { ControlError } from "./control.ts";
import { acceptedHosts, hostProblem, tokenMatches } from "./http_guard.ts";

export interface ListenerOptions {
  /** Literal loopback address; port 0 takes a free one. */
  readonly address: SocketAddress;
  /** What changes must carry as `Authorization: Bearer`; null: there is nothing to change. */
  readonly token: string | null;
  readonly log: Log;
  /** Whose it is. */
  readonly role: "member" | "agent";
  /** What is told to somebody who asks for a path that is not there. */
  readonly elsewhere: string;
  readonly addRoutes: (app: Hono) => void;
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
export class Refusal extends Error {
  constructor(readonly kind: ErrorKind, message: string) {
    super(message);
  }
}

/** Throws when the address is not loopback or cannot be bound. */
export function startListener(options: ListenerOptions): AdminServer {
  const { address, log, role } = options;
  const text = formatSocketAddress(address);
  if (!isLoopback(address)) {
    throw new Error(
      `Cannot serve the admin API on ${text}: without TLS it must be a loopback address. ` +
        `Set [${role}] admin to "127.0.0.1:${address.port}" and reach it from elsewhere through ssh -L.`,
    );
  }
  let hosts: ReadonlySet<string> = new Set();
  const abort = new AbortController();
  const traffic = new Traffic();
  const app = guarded(options, () => hosts, traffic);
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
        `Stop what uses the address, or set [${role}] admin to another port.`,
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

function guarded(
  { token, log, role, elsewhere, addRoutes }: ListenerOptions,
  hosts: () => ReadonlySet<string>,
  traffic: Traffic,
): Hono {
  const app = new Hono();
  let running = 0;

  app.use("*", async (c, next) => {
    const problem = hostProblem(hosts(), c.req.header("host") ?? null, c.req.header("origin") ?? null);
    if (problem !== null) throw new Refusal("forbidden", problem);
    if (traffic.ending) throw new Refusal("unavailable", `The ${role} is stopping.`);
    if (running >= limits.adminRequestsMax) {
      throw new Refusal(
        "unavailable",
        `${running} admin requests are running already. Try again in a moment.`,
      );
    }
    const isChange = c.req.method !== "GET" && c.req.method !== "HEAD";
    const authorization = c.req.header("authorization") ?? null;
    if (isChange && token !== null && !tokenMatches(token, authorization)) {
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

  addRoutes(app);

  app.notFound((c) => answer(c, "notFound", `There is nothing at ${c.req.path}. ${elsewhere}`));
  app.onError((error, c) => {
    if (error instanceof Refusal || error instanceof ControlError) {
      return answer(c, error.kind, error.message);
    }
    log.error("admin request failed", { method: c.req.method, path: c.req.path, reason: error.message });
    return answer(
      c,
      "internal",
      `Cannot ${c.req.method} ${c.req.path}: internal error. The ${role}'s log says more.`,
    );
  });
  return app;
}

function answer(c: Context, kind: ErrorKind, message: string): Response {
  return c.json({ error: { kind, message } }, statusOf[kind]);
}

export function refuseMethod(c: Context): never {
  throw new Refusal(
    "method",
    `${c.req.path} does not take ${c.req.method}. docs/api.md lists what it takes.`,
  );
}
