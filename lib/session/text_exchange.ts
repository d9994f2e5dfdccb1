// Text requests of full feature phase, RFC 7143 §6.4, §11.10, §11.11: one exchange at a time, continued over the C bit
// in both directions, with SendTargets and the keys that may still be declared.

import { Opcode, reservedTag, TextRequest, TextResponse } from "../wire/iscsi/bhs.ts";
import { RejectReason } from "../wire/iscsi/status.ts";
import { formatText, parseText } from "../wire/iscsi/text.ts";
import type { Link } from "./link.ts";
import type { Negotiation } from "./negotiation.ts";
import { type Asker, sendTargets } from "./send_targets.ts";
import { TextInput, TextOutput } from "./text_chunks.ts";

const pairsMax = 64;

export class TextExchange {
  readonly #link: Link;
  readonly #negotiation: Negotiation;
  readonly #asker: Asker;
  readonly #input = new TextInput();
  readonly #output = new TextOutput();
  #initiatorTaskTag = reservedTag;
  /** Of the exchange that waits for the initiator; reservedTag: none. */
  #targetTransferTag = reservedTag;
  #nextTag = 1;

  constructor(link: Link, negotiation: Negotiation, asker: Asker) {
    this.#link = link;
    this.#negotiation = negotiation;
    this.#asker = asker;
  }

  /** A text is not complete, one way or the other. */
  get busy(): boolean {
    return this.#output.pending || this.#targetTransferTag !== reservedTag;
  }

  /** Answers the request at `at` with its data, or rejects it. */
  request(view: DataView, at: number, data: Uint8Array): void {
    const tag = TextRequest.targetTransferTag.get(view, at);
    const initiatorTaskTag = TextRequest.initiatorTaskTag.get(view, at);
    const final = TextRequest.final.get(view, at) === 1;
    const more = TextRequest.continue.get(view, at) === 1;
    const begins = tag === reservedTag;
    if (begins) this.#begin(initiatorTaskTag);
    const known = begins || (tag === this.#targetTransferTag && initiatorTaskTag === this.#initiatorTaskTag);
    if (!known) return this.#reject(RejectReason.invalidPduField.code, view, at);
    if (more && final) return this.#reject(RejectReason.protocolError.code, view, at);
    if (this.#output.pending) {
      if (data.length > 0) return this.#reject(RejectReason.protocolError.code, view, at);
      return this.#answer(view, at, final);
    }
    if (!this.#input.add(data)) return this.#reject(RejectReason.protocolError.code, view, at);
    if (!more && !this.#decide()) return this.#reject(RejectReason.protocolError.code, view, at);
    this.#answer(view, at, final && !more);
  }

  /** A new exchange resets the one before (§11.10.4). */
  #begin(initiatorTaskTag: number): void {
    this.#input.clear();
    this.#output.clear();
    this.#initiatorTaskTag = initiatorTaskTag;
    this.#targetTransferTag = reservedTag;
    this.#negotiation.beginSequence();
  }

  /** Decides a whole text and puts the answer together; false when it breaks the rules. */
  #decide(): boolean {
    const text = this.#input.take();
    const parsed = parseText(text, 0, text.length, pairsMax);
    if (parsed.kind === "malformed") return false;
    const result = this.#negotiation.receive(parsed.pairs, "fullFeature");
    if (result.kind === "error") return false;
    const replies = [...result.replies];
    for (const { key, value } of result.delegated) {
      if (key === "SendTargets") replies.push(...sendTargets(this.#asker, value));
    }
    this.#output.put(formatText(replies));
    return true;
  }

  #answer(view: DataView, requestAt: number, final: boolean): void {
    const link = this.#link;
    const piece = this.#output.next(link.parameters.peerMaxRecvDataSegmentLength);
    const more = this.#output.pending;
    const at = link.control(Opcode.textResponse);
    if (at < 0) return;
    const out = link.output.view;
    const over = final && !more;
    this.#targetTransferTag = over ? reservedTag : this.#takeTag();
    TextResponse.final.set(out, at, over ? 1 : 0);
    TextResponse.continue.set(out, at, more ? 1 : 0);
    out.setUint32(at + 8, view.getUint32(requestAt + 8)); // the LUN comes back
    out.setUint32(at + 12, view.getUint32(requestAt + 12));
    TextResponse.initiatorTaskTag.set(out, at, this.#initiatorTaskTag);
    TextResponse.targetTransferTag.set(out, at, this.#targetTransferTag);
    link.stampStatus(at);
    link.finishControl(piece);
  }

  #takeTag(): number {
    const tag = this.#nextTag;
    this.#nextTag = (tag + 1) % reservedTag;
    return tag;
  }

  #reject(reason: number, view: DataView, at: number): void {
    this.#input.clear();
    this.#output.clear();
    this.#targetTransferTag = reservedTag;
    this.#link.reject(reason, view, at);
  }
}
