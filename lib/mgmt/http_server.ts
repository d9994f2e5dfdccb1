// The admin API of a member: JSON over HTTP on a loopback address, for the command line, scripts and monitors.
// docs/api.md describes it for callers. It knows the member only as a MemberControl.

import type { Context, Hono } from "hono";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import type { SocketAddress } from "../base/network.ts";
import { drainPurposes } from "../meta/records.ts";
import type { MemberControl } from "./control.ts";
import { type AdminServer, Refusal, refuseMethod, startListener } from "./http_listener.ts";
import {
  type Parsed,
  parseMove,
  parsePolicy,
  parseResize,
  parseVolumeChange,
  parseVolumeCreation,
} from "./http_requests.ts";

export type { AdminServer };

export interface AdminServerOptions {
  /** Literal loopback address; port 0 takes a free one. */
  readonly address: SocketAddress;
  readonly control: MemberControl;
  /** What changes must carry as `Authorization: Bearer`. */
  readonly token: string;
  readonly log: Log;
}

/** Throws when the address is not loopback or cannot be bound. */
export function startAdminServer({ control, ...options }: AdminServerOptions): AdminServer {
  return startListener({
    ...options,
    role: "member",
    elsewhere: "docs/api.md lists the paths.",
    addRoutes: (app) => addRoutes(app, control),
  });
}

function addRoutes(app: Hono, control: MemberControl): void {
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
}

export function noSuchVolume(name: string): string {
  return `There is no volume "${name}". "plimsoll volume list" shows those there are.`;
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
