// The main thread's end of the data-plane worker: a RunningMember whose work is done over there. A worker that dies or
// falls silent ends the process: its descriptors and ring buffers outlive it, so nothing but a restart is clean.

import type { Log } from "../lib/base/log.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import type { MemberConfig } from "../lib/config/mod.ts";
import type { MemberControl } from "../lib/mgmt/control.ts";
import type { LogFormat, LogLevel } from "./logging.ts";
import type { RunningMember } from "./target_member.ts";
import { Cell, errorOf, type FromWorker, type MemberMethod, type ToWorker } from "./target_messages.ts";

/** A loop that has not turned for so long is dead, milliseconds. */
const silenceMsMax = 5_000;
const watchMs = 1_000;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Starts the member in the worker; rejects with what startMember rejects with over there. */
export async function startRemoteMember(
  config: MemberConfig,
  log: Log,
  logging: { readonly level: LogLevel; readonly format: LogFormat },
): Promise<RunningMember> {
  const remote = new RemoteMember(log);
  await remote.start(config, logging);
  return remote;
}

class RemoteMember implements RunningMember {
  readonly control: MemberControl;
  readonly #worker: Worker;
  readonly #cells = new SharedArrayBuffer(4 * Cell.count);
  readonly #view = new Int32Array(this.#cells);
  readonly #pending = new Map<number, Pending>();
  readonly #log: Log;
  #nextId = 1;
  #lastBeat = 0;
  #lastBeatMs = 0;
  #progress: (step: string) => void = () => {};

  constructor(log: Log) {
    this.#log = log;
    this.#worker = new Worker(new URL("./target_worker.ts", import.meta.url), {
      type: "module",
      name: "data plane",
    });
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => this.#received(event.data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#end("the data-plane worker has failed", event.message);
    };
    this.control = {
      ready: () => Atomics.load(this.#view, Cell.ready) === 1,
      status: () => this.#call("status"),
      sessions: () => this.#call("sessions"),
      createVolume: (creation) => this.#call("createVolume", creation),
      setVolume: (name, change) => this.#call("setVolume", name, change),
      resizeVolume: (name, sizeBytes) => this.#call("resizeVolume", name, sizeBytes),
      deleteVolume: (name) => this.#call("deleteVolume", name),
    };
  }

  async start(config: MemberConfig, logging: { level: LogLevel; format: LogFormat }): Promise<void> {
    const started = new Promise<unknown>((resolve, reject) => this.#pending.set(0, { resolve, reject }));
    this.#send({
      kind: "start",
      config,
      logLevel: logging.level,
      logFormat: logging.format,
      cells: this.#cells,
    });
    await started;
    this.#watch();
  }

  reload(config: MemberConfig): Promise<void> {
    return this.#call("reload", config);
  }

  stop(progress: (step: string) => void): Promise<void> {
    this.#progress = progress;
    return this.#call("stop");
  }

  #call<T>(method: MemberMethod, ...args: readonly unknown[]): Promise<T> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#send({ kind: "call", id, method, args });
    });
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #received(message: FromWorker): void {
    if (message.kind === "progress") return this.#progress(message.step);
    if (message.kind === "mistake") return this.#end("the data-plane worker has failed", message.what);
    const id = message.kind === "started" ? 0 : message.id;
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (message.kind === "failure") pending?.reject(errorOf(message.failure));
    else pending?.resolve(message.kind === "answer" ? message.value : undefined);
  }

  #watch(): void {
    const beat = Atomics.load(this.#view, Cell.heartbeat);
    const nowMs = systemClock.nowMs();
    if (beat !== this.#lastBeat || this.#lastBeatMs === 0) {
      this.#lastBeat = beat;
      this.#lastBeatMs = nowMs;
    } else if (nowMs - this.#lastBeatMs > silenceMsMax) {
      this.#end(
        "the data-plane worker does not turn any more",
        `silent for ${Math.round(nowMs - this.#lastBeatMs)} ms`,
      );
    }
    Deno.unrefTimer(setTimeout(() => this.#watch(), watchMs));
  }

  #end(what: string, reason: string): void {
    this.#log.error(what, { reason });
    Deno.exit(70); // EX_SOFTWARE: systemd starts the member again
  }
}
