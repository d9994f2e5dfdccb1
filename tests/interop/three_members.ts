// A group of three member processes on loopback, each at addresses of its own, on an SQLite file or on a real etcd.

import type { RouteReport } from "../../lib/mgmt/control.ts";
import { EtcdServer } from "../meta/etcd_server.ts";
import { type TargetOptions, TargetProcess, until } from "./target_process.ts";

export const memberNames = ["alpha", "beta", "gamma"] as const;

export type Keeper = "sqlite" | "etcd";

export class ThreeMembers implements AsyncDisposable {
  private constructor(
    readonly etcd: EtcdServer | null,
    readonly members: readonly TargetProcess[],
  ) {}

  /** `options` are every member's; the volumes in them are left to createVolume(). */
  static async start(keeper: Keeper, options: TargetOptions = {}): Promise<ThreeMembers> {
    const etcd = keeper === "etcd" ? (await EtcdServer.start())[0]! : null;
    const members: TargetProcess[] = [];
    const group = new ThreeMembers(etcd, members);
    try {
      for (const [i, member] of memberNames.entries()) {
        const [first] = members;
        members.push(
          await TargetProcess.start({
            addresses: [`127.0.0.${11 + i}`, `127.0.0.${21 + i}`],
            ...options,
            volumes: [],
            member,
            ...first?.fellowOptions,
            ...etcd !== null && { metadata: `etcd:${etcd.url}` },
          }),
        );
      }
    } catch (e) {
      await group[Symbol.asyncDispose]();
      throw e;
    }
    return group;
  }

  /** A volume whose pages lie on all three; returns when every member serves it. */
  async createVolume(name: string, size: string, ...more: string[]): Promise<void> {
    const wanted = ["--size", size, "--members", memberNames.join(","), ...more];
    const made = await this.members[0]!.run("volume", "create", name, ...wanted);
    if (made.code !== 0) throw new Error(`volume create ended with status ${made.code}: ${made.stderr}`);
    await served(name, this.members);
  }

  /** Ends all three in order; throws when one does not end with 0. */
  async stop(): Promise<void> {
    for (const member of this.members) {
      const { code } = await member.stop();
      if (code !== 0) throw new Error(`A member ended with status ${code}:\n${member.log}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const member of [...this.members].reverse()) await member[Symbol.asyncDispose]();
    await this.etcd?.stop();
  }
}

/** Null: the member does not serve the volume (yet). */
export async function route(member: TargetProcess, volume: string): Promise<RouteReport | null> {
  const answer = await fetch(`http://${member.admin}/api/volumes/${volume}/route`);
  if (answer.ok) return await answer.json();
  await answer.body?.cancel();
  return null;
}

/** Waits until every one of the members serves the volume. */
export async function served(volume: string, members: readonly TargetProcess[]): Promise<void> {
  for (const member of members) {
    await until(async () => await route(member, volume) !== null, `${volume} is served`);
  }
}
