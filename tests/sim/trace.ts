// What a run did, as a hash of everything and the last events in words. Same seed, same hash, in every process: that is
// what "a failing seed replays exactly" rests on.

const ringEvents = 4096;

interface TraceEvent {
  readonly atMs: number;
  readonly what: string;
  readonly a: number;
  readonly b: number;
  readonly note: string;
}

export class Trace {
  #low = 0x811c_9dc5;
  #high = 0x1b87_3593;
  #events: TraceEvent[] = [];
  #codes = new Map<string, number>();
  count = 0;
  nowMs: () => number = () => 0;
  /** Sees every event in words; for --trace. */
  printer: ((line: string) => void) | null = null;

  /** `what` is one of few words; `a`, `b` and `note` say the rest. */
  event(what: string, a = 0, b = 0, note = ""): void {
    const atMs = this.nowMs();
    this.count++;
    this.#mix(this.#code(what));
    this.#mix(Math.round(atMs * 1000));
    this.#mix(a);
    this.#mix(b);
    for (let i = 0; i < note.length; i++) this.#mix(note.charCodeAt(i));
    const event = { atMs, what, a, b, note };
    this.#events.push(event);
    if (this.#events.length > 2 * ringEvents) this.#events = this.#events.slice(-ringEvents);
    if (this.printer !== null) this.printer(words(event));
  }

  /** 64 bits as text. */
  get hash(): string {
    const hex = (n: number) => (n >>> 0).toString(16).padStart(8, "0");
    return hex(this.#high) + hex(this.#low);
  }

  /** The last events in words, the newest last. */
  last(count: number): string[] {
    return this.#events.slice(-count).map(words);
  }

  #mix(value: number): void {
    const low = value | 0;
    this.#low = Math.imul(this.#low ^ low, 0x0100_0193);
    this.#low ^= this.#low >>> 15;
    this.#high = Math.imul(this.#high + low | 0, 0x85eb_ca6b) ^ this.#low;
    this.#high ^= this.#high >>> 13;
  }

  #code(what: string): number {
    let code = this.#codes.get(what);
    if (code === undefined) this.#codes.set(what, code = hashOf(what));
    return code;
  }
}

function words({ atMs, what, a, b, note }: TraceEvent): string {
  return `${atMs.toFixed(3).padStart(12)} ${what} ${a} ${b} ${note}`.trimEnd();
}

function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return hash;
}

/** A number that tells byte ranges apart. */
export function sumOf(bytes: Uint8Array, start: number, end: number): number {
  let sum = 0x811c_9dc5;
  for (let i = start; i < end; i++) sum = Math.imul(sum ^ bytes[i]!, 0x0100_0193);
  return sum >>> 0;
}
