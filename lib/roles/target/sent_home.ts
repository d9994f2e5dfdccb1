// Initiator ports that were sent from the group's address to this member's own portal. One that comes back without having been
// there cannot get there, and is not sent again.

import { limits } from "../../base/limits.ts";
import type { LoginQuestion } from "../../session/target_node.ts";

type Login = Pick<LoginQuestion, "initiatorName" | "isid"> & { readonly target: { readonly name: string } };

export class SentHome {
  /** Until when each is awaited. */
  readonly #awaited = new Map<string, number>();

  /** False: it has been sent already and did not arrive. */
  send(login: Login, untilMs: number, nowMs: number): boolean {
    for (const [key, endMs] of this.#awaited) if (endMs <= nowMs) this.#awaited.delete(key);
    const key = keyOf(login);
    if (this.#awaited.delete(key)) return false;
    if (this.#awaited.size >= limits.intentsMax) this.#awaited.delete(this.#awaited.keys().next().value!);
    this.#awaited.set(key, untilMs);
    return true;
  }

  /** It has logged in at a portal of this member's own. */
  arrived(login: Login): void {
    this.#awaited.delete(keyOf(login));
  }
}

function keyOf({ initiatorName, isid, target }: Login): string {
  return `${isid} ${target.name} ${initiatorName}`;
}
