// The admin API as callers see it. node:http and not fetch: fetch obeys HTTP_PROXY even for loopback addresses, and
// would hand the token to whatever listens there. No redirects are followed, for the same reason.

import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { isLoopback } from "../config/address.ts";
import type { DrainPurpose } from "../meta/records.ts";
import type { AgentReport } from "./agent_control.ts";
import type {
  BalanceOpinion,
  BalanceReport,
  MemberReport,
  MoveReport,
  RouteReport,
  SessionReport,
  StatusReport,
  VolumeChange,
  VolumeCreation,
  VolumeReport,
} from "./control.ts";

/** The API could not be reached, or said no; `message` says what was tried, why, and what to do. */
export class AdminError extends Error {
  override name = "AdminError";
  constructor(
    /** The answer's kind, or how far the request came. */
    readonly kind: string,
    message: string,
  ) {
    super(message);
  }
}

/** Deleting a volume ends its sessions and gives pages back, so it may take a while. */
const readTimeMsMax = 10_000;
const changeTimeMsMax = 120_000;
/** 1,024 volumes with all their patterns and as many sessions need some 40 MiB in the worst case. */
const answerBytesMax = 64 * 1024 * 1024;

export class AdminClient {
  readonly #base: URL;
  readonly #token: () => Promise<string>;
  readonly #whose: Whose;

  /** `token` is asked when a change needs it. */
  constructor(base: URL, token: () => Promise<string>, whose: Whose = { noun: "member", command: "target" }) {
    this.#base = base;
    this.#token = token;
    this.#whose = whose;
  }

  get url(): string {
    return this.#base.origin;
  }

  status(): Promise<StatusReport> {
    return this.#ask("GET", "/api/status");
  }

  /** Of whatever answers there. */
  anyStatus(): Promise<StatusReport | AgentReport> {
    return this.#ask("GET", "/api/status");
  }

  members(): Promise<MemberReport[]> {
    return this.#ask("GET", "/api/members");
  }

  sessions(): Promise<SessionReport[]> {
    return this.#ask("GET", "/api/sessions");
  }

  volumes(): Promise<VolumeReport[]> {
    return this.#ask("GET", "/api/volumes");
  }

  volume(name: string): Promise<VolumeReport> {
    return this.#ask("GET", pathOf(name));
  }

  route(name: string): Promise<RouteReport> {
    return this.#ask("GET", `${pathOf(name)}/route`);
  }

  createVolume(creation: VolumeCreation): Promise<VolumeReport> {
    return this.#ask("POST", "/api/volumes", creation);
  }

  setVolume(name: string, change: VolumeChange): Promise<VolumeReport> {
    return this.#ask("PATCH", pathOf(name), change);
  }

  resizeVolume(name: string, sizeBytes: number): Promise<VolumeReport> {
    return this.#ask("POST", `${pathOf(name)}/resize`, { sizeBytes });
  }

  async deleteVolume(name: string): Promise<void> {
    await this.#ask("DELETE", pathOf(name));
  }

  async drainMember(name: string, purpose: DrainPurpose | null): Promise<void> {
    const path = `${memberPath(name)}/drain`;
    if (purpose === null) await this.#ask("DELETE", path);
    else await this.#ask("PUT", `${path}?purpose=${purpose}`);
  }

  async removeMember(name: string): Promise<void> {
    await this.#ask("DELETE", memberPath(name));
  }

  moveSession(id: number, to: string, live: boolean): Promise<MoveReport> {
    return this.#ask("POST", `/api/sessions/${id}/move`, { to, live });
  }

  balance(): Promise<BalanceReport> {
    return this.#ask("GET", "/api/balance");
  }

  async runBalance(): Promise<BalanceOpinion | null> {
    return (await this.#ask<{ move: BalanceOpinion | null }>("POST", "/api/balance/run")).move;
  }

  async setBalancePolicy(policy: string): Promise<void> {
    await this.#ask("POST", "/api/balance/policy", { policy });
  }

  async #ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const headers: Record<string, string> = { Accept: "application/json" };
    const isChange = method !== "GET";
    if (isChange) headers.Authorization = `Bearer ${await this.#changeToken()}`;
    let text = "";
    if (body !== undefined) {
      text = JSON.stringify(body);
      headers["Content-Type"] = "application/json";
      headers["Content-Length"] = String(new TextEncoder().encode(text).length);
    }
    const url = new URL(path, this.#base);
    const timeMsMax = isChange ? changeTimeMsMax : readTimeMsMax;
    const answer = await exchange(url, method, headers, text, timeMsMax, this.#whose);
    return this.#read(method, path, answer) as T;
  }

  async #changeToken(): Promise<string> {
    const { protocol, hostname } = this.#base;
    const host = hostname.replace(/^\[|\]$/g, "");
    if (protocol === "http:" && host !== "localhost" && !isLoopback({ hostname: host })) {
      throw new AdminError(
        "unencrypted",
        `Will not send the admin token to ${this.url}: the connection is not encrypted. ` +
          `Make a tunnel (ssh -L 3280:127.0.0.1:3280 ${host}) and use --api http://127.0.0.1:3280.`,
      );
    }
    return await this.#token();
  }

  #read(method: string, path: string, answer: Answer): unknown {
    if (answer.status === 204) return undefined;
    let body: unknown;
    try {
      body = JSON.parse(answer.text);
    } catch {
      throw new AdminError(
        "foreign",
        `${method} ${this.url}${path} was answered ${answer.status} without JSON: that is no Plimsoll ${this.#whose.noun}. ` +
          `Check the address.`,
      );
    }
    const error = (body as { error?: { kind?: unknown; message?: unknown } } | null)?.error;
    if (error !== undefined) throw new AdminError(String(error.kind), String(error.message));
    if (answer.status < 200 || answer.status > 299) {
      throw new AdminError(
        "foreign",
        `${method} ${this.url}${path} was answered with status ${answer.status}.`,
      );
    }
    return body;
  }
}

/** What is expected to answer, and the command that starts it. */
export interface Whose {
  readonly noun: string;
  readonly command: string;
}

const memberPath = (name: string) => `/api/members/${encodeURIComponent(name)}`;
const pathOf = (name: string) => `/api/volumes/${encodeURIComponent(name)}`;

interface Answer {
  readonly status: number;
  readonly text: string;
}

function exchange(
  url: URL,
  method: string,
  headers: Record<string, string>,
  body: string,
  timeMsMax: number,
  { noun, command }: Whose,
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  let connected = false;
  const fail = (reason: string) => {
    const advice = connected
      ? `Something listens there that is no ${noun}, or hangs: see what it is (ss -ltnp)`
      : `Start it ("plimsoll ${command}")`;
    reject(
      new AdminError(
        "unreachable",
        `Cannot reach the ${noun} at ${url.origin}: ${reason}. ` +
          `${advice}, or name another address with --api or --config.`,
      ),
    );
  };
  const ask = url.protocol === "https:" ? httpsRequest : httpRequest;
  const request = ask(url, { method, headers, agent: false }, (response) => {
    const chunks: Uint8Array[] = [];
    let length = 0;
    response.on("data", (chunk: Uint8Array) => {
      length += chunk.length;
      if (length > answerBytesMax) {
        request.destroy(new Error(`its answer is larger than ${answerBytesMax} bytes`));
      } else chunks.push(chunk);
    });
    response.on("end", () => {
      clearTimeout(timer);
      const bytes = new Uint8Array(length);
      let at = 0;
      for (const chunk of chunks) {
        bytes.set(chunk, at);
        at += chunk.length;
      }
      resolve({ status: response.statusCode ?? 0, text: new TextDecoder().decode(bytes) });
    });
    response.on("error", (error: Error) => fail(error.message));
  });
  const timer = setTimeout(() => {
    request.destroy(new Error(`no answer within ${timeMsMax / 1000} s`));
  }, timeMsMax);
  request.on("socket", (socket) => {
    socket.once("connect", () => {
      connected = true;
    });
  });
  request.on("error", (error: Error & { code?: string }) => {
    clearTimeout(timer);
    fail(error.code === "ECONNREFUSED" ? "nothing listens there" : error.message);
  });
  request.end(body);
  return promise;
}
