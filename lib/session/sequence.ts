// Serial numbers and the command window, RFC 7143 §4.2.2.1 and RFC 1982. MaxCmdSN is the backpressure: it opens one
// command at a time, and only when the session grants the slot and the room that the command may need.

/** a - b of 32-bit serial numbers, as a signed number. */
export function serialDifference(a: number, b: number): number {
  return (a - b) | 0;
}

export function serialAdd(a: number, n: number): number {
  return (a + n) >>> 0;
}

/** Something that came ahead of its turn. */
export interface Numbered {
  /** Its turn has come. */
  deliver(): void;
}

const aheadMax = 256;

export class CommandWindow {
  #expCmdSn = 0;
  #maxCmdSn = 0;
  /** Received ahead of their turn, by CmdSN modulo aheadMax. */
  readonly #ahead: (Numbered | null)[] = new Array<Numbered | null>(aheadMax).fill(null);
  #aheadCount = 0;

  get expCmdSn(): number {
    return this.#expCmdSn;
  }

  get maxCmdSn(): number {
    return this.#maxCmdSn;
  }

  /** Commands that the initiator may still send: CmdSNs in the window that have not come. */
  get open(): number {
    return serialDifference(this.#maxCmdSn, this.#expCmdSn) + 1 - this.#aheadCount;
  }

  /** Whether something waits for what should have come before it. */
  get gaps(): boolean {
    return this.#aheadCount > 0;
  }

  /** A closed window at `cmdSn`. */
  start(cmdSn: number): void {
    this.#expCmdSn = cmdSn;
    this.#maxCmdSn = serialAdd(cmdSn, -1);
    this.#ahead.fill(null);
    this.#aheadCount = 0;
  }

  /** Lets one command more in. */
  openOne(): void {
    this.#maxCmdSn = serialAdd(this.#maxCmdSn, 1);
  }

  /** True when a PDU with this CmdSN is to be taken; otherwise it is ignored (§4.2.2.1: outside, or a duplicate). */
  admits(cmdSn: number): boolean {
    const distance = serialDifference(cmdSn, this.#expCmdSn);
    return distance >= 0 && serialDifference(cmdSn, this.#maxCmdSn) <= 0 && distance < aheadMax &&
      this.#ahead[cmdSn % aheadMax] === null;
  }

  /** Takes an admitted PDU: delivers it, and those that waited for it, or keeps it for its turn. */
  accept(cmdSn: number, pdu: Numbered): void {
    if (cmdSn !== this.#expCmdSn) {
      this.#ahead[cmdSn % aheadMax] = pdu;
      this.#aheadCount++;
      return;
    }
    this.#expCmdSn = serialAdd(cmdSn, 1);
    pdu.deliver();
    while (this.#aheadCount > 0) {
      const index = this.#expCmdSn % aheadMax;
      const next = this.#ahead[index]!;
      if (next === null) return;
      this.#ahead[index] = null;
      this.#aheadCount--;
      this.#expCmdSn = serialAdd(this.#expCmdSn, 1);
      next.deliver();
    }
  }

  /** Gives every waiting PDU to `drop`: their connection is gone. */
  clear(drop: (pdu: Numbered) => void): void {
    for (let i = 0; i < aheadMax && this.#aheadCount > 0; i++) {
      const pdu = this.#ahead[i]!;
      if (pdu === null) continue;
      this.#ahead[i] = null;
      this.#aheadCount--;
      drop(pdu);
    }
  }
}
