// What can be logged in to on a member's peer address: its member targets, by members of the group, proving the group's
// secret both ways. Nothing is listed, and no volume is served there.

import type { BufferPool } from "../base/buffer_pool.ts";
import type {
  LookupResult,
  TargetDirectory,
  TargetPortal,
  TargetRecord,
} from "../session/target_directory.ts";
import type { DeviceServer } from "../session/task.ts";
import { memberName, memberProofs, memberTargetName } from "./identity.ts";

/** One hop class: what serves it, with buffers that nobody else waits for. */
export interface HopClass {
  readonly server: DeviceServer;
  readonly pool: BufferPool;
}

export class MemberDirectory implements TargetDirectory {
  readonly #targets = new Map<string, TargetRecord>();
  /** Initiator names of members begin so. */
  readonly #initiators: string;

  /** `classes`: of operations forwarded once, twice, … `secret` is the group's. */
  constructor(iqnPrefix: string, member: string, secret: string, classes: readonly HopClass[]) {
    this.#initiators = memberName(iqnPrefix, "");
    for (const [i, { server, pool }] of classes.entries()) {
      const name = memberTargetName(iqnPrefix, member, i + 1);
      const access = memberProofs(secret, name);
      this.#targets.set(name, { name, alias: "", access, deviceServer: server, pool });
    }
  }

  lookup(targetName: string, initiatorName: string, _portal: TargetPortal): LookupResult {
    const target = this.#targets.get(targetName);
    if (target === undefined) return { kind: "notFound" };
    return initiatorName.startsWith(this.#initiators) ? { kind: "found", target } : { kind: "forbidden" };
  }

  visible(): readonly TargetRecord[] {
    return [];
  }

  portalsOf(_target: TargetRecord, portal: TargetPortal): readonly TargetPortal[] {
    return [portal];
  }
}
