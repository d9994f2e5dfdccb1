// The Logout Response, RFC 7143 §11.15. It waits in the queue behind the answers of commands that ended before.

import { LogoutResponse, Opcode } from "../wire/iscsi/bhs.ts";
import type { Answer, Link } from "./link.ts";

export class LogoutAnswer implements Answer {
  next: Answer | null = null;
  readonly #tag: number;
  readonly #response: number;

  constructor(tag: number, response: number) {
    this.#tag = tag;
    this.#response = response;
  }

  emit(link: Link): boolean {
    const at = link.control(Opcode.logoutResponse);
    if (at < 0) return true; // the connection is ending
    const view = link.output.view;
    LogoutResponse.response.set(view, at, this.#response);
    LogoutResponse.initiatorTaskTag.set(view, at, this.#tag);
    link.stampStatus(at);
    link.output.finish(0, null);
    return true;
  }
}
