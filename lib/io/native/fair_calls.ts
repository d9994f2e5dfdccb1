// Slow calls of several disks through a few threads: one disk that does not answer must not take them all. Each descriptor
// has so many calls under way at most; its others wait here, and nobody else's do.

import { type SlowCall, SlowCallQueue, type SlowCalls } from "./slow_calls.ts";

/** Call objects kept for reuse. */
const idleCallsMax = 256;

export class FairCalls implements SlowCalls {
  readonly #inner: SlowCalls;
  readonly #callsMax: number;
  /** By number: one that is closed and used again finds its empty queue. */
  readonly #byDescriptor = new Map<number, DescriptorCalls>();
  readonly #idle: FairCall[] = [];

  /** `callsMax`: of one descriptor under way at a time. */
  constructor(inner: SlowCalls, callsMax: number) {
    this.#inner = inner;
    this.#callsMax = Math.max(1, callsMax);
  }

  get way(): SlowCalls["way"] {
    return this.#inner.way;
  }

  submit(call: SlowCall): void {
    let own = this.#byDescriptor.get(call.fd);
    if (own === undefined) this.#byDescriptor.set(call.fd, own = new DescriptorCalls());
    if (own.underWay === this.#callsMax) own.waiting.push(call);
    else this.#start(own, call);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  /** For FairCall. */
  completed(done: FairCall, result: number): void {
    const call = done.call!;
    const own = done.own!;
    done.call = done.own = null;
    if (this.#idle.length < idleCallsMax) this.#idle.push(done);
    own.underWay--;
    if (!own.waiting.empty) this.#start(own, own.waiting.shift());
    call.completed(result);
  }

  #start(own: DescriptorCalls, call: SlowCall): void {
    own.underWay++;
    const started = this.#idle.pop() ?? new FairCall(this);
    started.begin(own, call);
    this.#inner.submit(started);
  }
}

class DescriptorCalls {
  underWay = 0;
  readonly waiting = new SlowCallQueue();
}

/** What the inner calls see of a call. */
class FairCall implements SlowCall {
  kind = 0;
  fd = 0;
  offsetBytes = 0;
  address = 0;
  lengthBytes = 0;
  call: SlowCall | null = null;
  own: DescriptorCalls | null = null;

  constructor(readonly host: FairCalls) {}

  begin(own: DescriptorCalls, call: SlowCall): void {
    this.own = own;
    this.call = call;
    this.kind = call.kind;
    this.fd = call.fd;
    this.offsetBytes = call.offsetBytes;
    this.address = call.address;
    this.lengthBytes = call.lengthBytes;
  }

  completed(result: number): void {
    this.host.completed(this, result);
  }
}
