// What came ahead of its turn by CmdSN and is no SCSI command: kept as a copy (RFC 7143 §4.2.2.1).

import { bhsBytes } from "../wire/iscsi/bhs.ts";
import type { Numbered } from "./sequence.ts";

/** A numbered PDU that came ahead of its turn, copied. */
export class Ahead implements Numbered {
  readonly #view: DataView;
  readonly #data: Uint8Array;
  readonly #handle: (view: DataView, data: Uint8Array) => void;

  constructor(
    view: DataView,
    at: number,
    data: Uint8Array,
    handle: (view: DataView, data: Uint8Array) => void,
  ) {
    this.#view = new DataView(new ArrayBuffer(bhsBytes));
    for (let i = 0; i < bhsBytes; i++) this.#view.setUint8(i, view.getUint8(at + i));
    this.#data = data;
    this.#handle = handle;
  }

  deliver(): void {
    this.#handle(this.#view, this.#data);
  }
}
