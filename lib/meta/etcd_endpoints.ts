// The way to etcd: its v3 API as JSON over HTTP, at one of several endpoints. A call goes to the endpoint that answered
// last; one that fails is left for the next. What an answer means is for the callers; whether there was one is decided here.

import type { Log } from "../base/log.ts";

export interface EtcdTls {
  /** PEM texts. */
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
}

export interface EtcdTimes {
  /** One endpoint is given so long for an answer. */
  readonly attemptMs: number;
  /** A call is tried for so long, at all endpoints. */
  readonly callMs: number;
  /** Pause after every endpoint has failed; doubles up to the second. */
  readonly backoffMs: number;
  readonly backoffMsMax: number;
  /** How often the endpoint of a watch is asked whether it is still there. */
  readonly pingMs: number;
}

/** etcd has answered, and the answer is no. */
export class EtcdRefusal extends Error {
  override name = "EtcdRefusal";
  constructor(
    /** gRPC status code. */
    readonly code: number,
    message: string,
  ) {
    super(message);
  }
}

/** No answer that says anything: the call may have been carried out, or be carried out yet. */
export class EtcdUnavailable extends Error {
  override name = "EtcdUnavailable";
}

export const grpc = Object.freeze({
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  outOfRange: 11,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
});

/** With these etcd says that it does not know either: it lost its leader, or gave up waiting. */
const inconclusive: readonly number[] = [
  grpc.cancelled,
  grpc.unknown,
  grpc.deadlineExceeded,
  grpc.internal,
  grpc.unavailable,
];

/** More than a page of a list (64 values of 64 KiB) and more than any transaction's answer. */
const answerBytesMax = 64 * 1024 * 1024;

export interface Endpoint {
  readonly url: string;
  readonly client: Deno.HttpClient;
  /** Why it does not answer; null: it does, or was not tried. */
  trouble: string | null;
  /** Its cluster has been found to be ours. */
  verified: boolean;
}

type Json = Record<string, unknown>;

export class EtcdEndpoints {
  readonly #endpoints: readonly Endpoint[];
  readonly #times: EtcdTimes;
  readonly #log: Log;
  readonly #ended = new AbortController();
  #current = 0;
  #clusterId: string | null = null;
  /** Told of an endpoint that has failed: watches there look for another. */
  onFailed: (endpoint: Endpoint) => void = () => {};

  constructor(urls: readonly string[], tls: EtcdTls | null, times: EtcdTimes, log: Log) {
    this.#endpoints = urls.map((url) => ({
      url,
      client: clientFor(url, tls),
      trouble: null,
      verified: false,
    }));
    this.#times = times;
    this.#log = log;
  }

  get current(): Endpoint {
    return this.#endpoints[this.#current]!;
  }

  /** "https://a:2379, https://b:2379", for messages. */
  get names(): string {
    return this.#endpoints.map(({ url }) => url).join(", ");
  }

  /** Why no endpoint answers, for messages. */
  get troubles(): string {
    return this.#endpoints.map(({ url, trouble }) => `${url}: ${trouble ?? "no trouble known"}`).join("; ");
  }

  /**
   * Calls until an endpoint answers or `untilMs` (performance.now()) has passed: for calls that may be carried out twice.
   * Rejects with EtcdRefusal, or with EtcdUnavailable, which says why for each endpoint.
   */
  async call(path: string, body: Json, untilMs: number): Promise<Json> {
    let pauseMs = this.#times.backoffMs;
    for (let tried = 1;; tried++) {
      try {
        return await this.once(path, body, untilMs);
      } catch (error) {
        if (!(error instanceof EtcdUnavailable) || this.#ended.signal.aborted) throw error;
        if (performance.now() >= untilMs) throw new EtcdUnavailable(this.troubles);
        if (tried % this.#endpoints.length !== 0) continue;
        await sleep(Math.min(pauseMs, untilMs - performance.now()), this.#ended.signal);
        pauseMs = Math.min(this.#times.backoffMsMax, pauseMs * 2);
      }
    }
  }

  /** One try at the current endpoint. */
  async once(path: string, body: Json, untilMs: number): Promise<Json> {
    return await this.at(this.current, path, body, untilMs);
  }

  /** One try at this endpoint. */
  async at(endpoint: Endpoint, path: string, body: Json, untilMs: number): Promise<Json> {
    await this.#verify(endpoint, untilMs);
    return await this.#post(endpoint, path, body, untilMs);
  }

  /** An answer that goes on: its lines, until it ends or `signal` is given. Rejects with EtcdUnavailable or EtcdRefusal. */
  async *lines(endpoint: Endpoint, path: string, body: Json, signal: AbortSignal): AsyncGenerator<Json> {
    await this.#verify(endpoint, performance.now() + this.#times.attemptMs);
    const cut = AbortSignal.any([signal, this.#ended.signal]);
    try {
      const response = await fetch(`${endpoint.url}${path}`, {
        client: endpoint.client,
        method: "POST",
        body: JSON.stringify(body),
        signal: cut,
      });
      if (response.status !== 200 || response.body === null) answerOf(response.status, await response.text());
      let text = "";
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
          yield answerOf(200, text.slice(0, end));
          text = text.slice(end + 1);
        }
        if (text.length > answerBytesMax) {
          throw new EtcdUnavailable(`an event has more than ${answerBytesMax} bytes`);
        }
      }
      throw new EtcdUnavailable("it ended the watch");
    } catch (error) {
      if (error instanceof EtcdRefusal) throw error;
      const reason = error instanceof EtcdUnavailable ? error.message : this.#reasonOf(endpoint, error);
      if (!cut.aborted) this.#failed(endpoint, reason);
      throw new EtcdUnavailable(reason);
    }
  }

  /** Calls in flight and watches fail from now on. */
  close(): void {
    this.#ended.abort();
    for (const { client } of this.#endpoints) client.close();
  }

  /** A transaction must not go to an etcd that is not the group's: it would be done there. */
  async #verify(endpoint: Endpoint, untilMs: number): Promise<void> {
    if (endpoint.verified) return;
    const probe = { key: btoa("\0"), count_only: true };
    const { header } = await this.#post(endpoint, "/v3/kv/range", probe, untilMs) as { header?: Json };
    const clusterId = String(header?.cluster_id ?? "");
    this.#clusterId ??= clusterId;
    if (clusterId !== this.#clusterId) {
      const reason = "it belongs to another etcd cluster: correct metadata in [group]";
      this.#failed(endpoint, reason);
      throw new EtcdUnavailable(reason);
    }
    endpoint.verified = true;
  }

  async #post(endpoint: Endpoint, path: string, body: Json, untilMs: number): Promise<Json> {
    const ms = Math.min(this.#times.attemptMs, untilMs - performance.now());
    if (ms <= 0) throw new EtcdUnavailable(this.troubles);
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), ms);
    try {
      const response = await fetch(`${endpoint.url}${path}`, {
        client: endpoint.client,
        method: "POST",
        body: JSON.stringify(body),
        signal: AbortSignal.any([late.signal, this.#ended.signal]),
        redirect: "manual",
      });
      const answer = answerOf(response.status, await textOf(response));
      if (endpoint.trouble !== null) {
        this.#log.info("etcd endpoint answers again", { endpoint: endpoint.url });
      }
      endpoint.trouble = null;
      return answer;
    } catch (error) {
      if (error instanceof EtcdRefusal) throw error;
      const reason = late.signal.aborted
        ? `no answer within ${Math.round(ms)} ms`
        : error instanceof EtcdUnavailable
        ? error.message
        : this.#reasonOf(endpoint, error);
      const fair = !late.signal.aborted || ms > this.#times.attemptMs / 2; // else it was the caller who had no time left
      if (fair && !this.#ended.signal.aborted) this.#failed(endpoint, reason);
      throw new EtcdUnavailable(reason);
    } finally {
      clearTimeout(timer);
    }
  }

  /** An endpoint that has never answered over TLS may want another certificate; some say so only by hanging up. */
  #reasonOf(endpoint: Endpoint, error: unknown): string {
    const reason = reasonOf(error);
    const unproven = endpoint.url.startsWith("https:") && !endpoint.verified && !/refused/i.test(reason);
    return unproven ? `${reason} (check metadata_tls)` : reason;
  }

  #failed(endpoint: Endpoint, reason: string): void {
    if (endpoint.trouble === null) {
      this.#log.warn("etcd endpoint does not answer", { endpoint: endpoint.url, reason });
    }
    endpoint.trouble = reason;
    if (this.current === endpoint) this.#current = (this.#current + 1) % this.#endpoints.length;
    this.onFailed(endpoint);
  }
}

/**
 * Plain HTTP goes straight to the endpoint: a proxy of the environment would read along, and fetch obeys it even on
 * loopback. (TLS may go through one: it reads nothing.)
 */
function clientFor(url: string, tls: EtcdTls | null): Deno.HttpClient {
  const { hostname, port, protocol } = new URL(url);
  if (protocol === "https:") {
    return Deno.createHttpClient({
      ...(tls?.ca ? { caCerts: [tls.ca] } : {}),
      ...(tls?.cert && tls.key ? { cert: tls.cert, key: tls.key } : {}),
    });
  }
  const direct = { hostname: hostname.replace(/^\[|\]$/g, ""), port: Number(port || 80) };
  return Deno.createHttpClient({ proxy: { transport: "tcp", ...direct } });
}

/** What etcd's gateway says; of an answer that goes on, one line. */
function answerOf(status: number, text: string): Json {
  let json: Json;
  try {
    json = JSON.parse(text) as Json;
  } catch {
    throw new EtcdUnavailable(
      `answered ${status} without JSON: no etcd of version 3.4 or later, or one without its gRPC gateway`,
    );
  }
  if (status === 200 && json.error === undefined) return (json.result ?? json) as Json;
  // {"error": "…", "code": n}, and in answers that go on {"error": {"message": "…", "grpc_code": n}}
  const error = typeof json.error === "object" ? json.error as Json : json;
  const code = Number(error.grpc_code ?? error.code ?? grpc.unknown);
  const message = String(error.message ?? error.error ?? `answered ${status}`);
  const busy = code === grpc.resourceExhausted && /too many requests/.test(message);
  if (busy || inconclusive.includes(code)) throw new EtcdUnavailable(message);
  throw new EtcdRefusal(code, message);
}

async function textOf(response: Response): Promise<string> {
  const length = Number(response.headers.get("content-length") ?? 0);
  if (length > answerBytesMax) throw new EtcdUnavailable(`an answer has ${length} bytes`);
  return await response.text();
}

/** The innermost cause says what happened; the rest says that something did. */
function reasonOf(error: unknown): string {
  let innermost = error instanceof Error ? error : new Error(String(error));
  while (innermost.cause instanceof Error) innermost = innermost.cause;
  const text = innermost.message.replace(/^.*client error \([A-Za-z]+\): /, "").replace(
    / \(os error \d+\)$/,
    "",
  );
  return /certificate|UnknownIssuer|HandshakeFailure|alert/i.test(text)
    ? `${text} (check metadata_tls)`
    : text;
}

export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.max(0, ms));
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}
