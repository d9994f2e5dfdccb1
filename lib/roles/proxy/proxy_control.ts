// What the admin API asks, answered by an initiator-proxy: status and sessions. Everything that changes the group is a
// member's to do.

import type { Clock } from "../../base/clock.ts";
import { formatSocketAddress } from "../../base/network.ts";
import {
  ControlError,
  type MemberControl,
  type SessionReport,
  type StatusReport,
  type VolumeReport,
} from "../../mgmt/control.ts";
import { version } from "../../mgmt/version.ts";
import type { TargetNode } from "../../session/target_node.ts";
import { naaIdentifier } from "../../wire/scsi/inquiry.ts";
import type { PortalState } from "../target/portals.ts";
import type { ProxyVolume } from "./proxy_volume.ts";

export interface ProxyControlParts {
  readonly clock: Clock;
  readonly group: string;
  readonly hostName: string;
  readonly iqnPrefix: string;
  readonly engine: { readonly name: string; readonly reason: string };
  readonly volumes: readonly ProxyVolume[];
  readonly node: TargetNode;
  readonly portals: () => readonly PortalState[];
  readonly tag: number;
  readonly ready: () => boolean;
}

export class ProxyControl implements MemberControl {
  readonly #parts: ProxyControlParts;
  readonly #startedMs: number;

  constructor(parts: ProxyControlParts) {
    this.#parts = parts;
    this.#startedMs = parts.clock.nowMs();
  }

  ready(): boolean {
    return this.#parts.ready();
  }

  status(): Promise<StatusReport> {
    const { group, hostName, engine, clock, node, volumes, portals, tag } = this.#parts;
    const sessions = [...node.sessions()];
    const own: StatusReport["members"][number] = {
      name: `${hostName} (initiator-proxy)`,
      state: this.ready() ? "up" : "joining",
      portals: portals().map(({ address, state, reason }) => ({
        address: formatSocketAddress(address),
        state,
        ...(reason === undefined ? {} : { reason }),
        targetPortalGroupTag: tag,
      })),
      load: {
        connections: node.connections,
        sessions: sessions.length,
        commands: sessions.reduce((sum, s) => sum + s.commands, 0),
        bytesRead: sessions.reduce((sum, s) => sum + s.bytesRead, 0),
        bytesWritten: sessions.reduce((sum, s) => sum + s.bytesWritten, 0),
      },
      now: null,
    };
    const members = volumes.find(({ plan }) => plan !== null)?.plan?.members ?? [];
    const proxied = volumes.map((volume) => volume.report());
    return Promise.resolve({
      group,
      member: own.name,
      version,
      engine: { ...engine },
      uptimeMs: Math.round(clock.nowMs() - this.#startedMs),
      notices: proxied.flatMap(({ name, reason }) =>
        reason === undefined ? [] : [`Volume "${name}" has no path to the group: ${reason}.`]
      ),
      members: [
        own,
        ...members.map(({ name, up, portals, targetPortalGroupTag }) => ({
          name,
          state: up ? "up" as const : "down" as const,
          portals: portals.map((address) => ({ address, state: "listening" as const, targetPortalGroupTag })),
          load: null,
          now: null,
        })),
      ],
      volumes: volumes.flatMap((volume) => this.#volume(volume) ?? []),
      proxied,
      disks: [],
      moves: { pages: 0, bytes: 0, failures: 0, moving: 0 },
      silentConnections: node.counters.silent,
      refusedConnections: node.counters.refused,
    });
  }

  sessions(): Promise<SessionReport[]> {
    const { node, iqnPrefix, hostName } = this.#parts;
    return Promise.resolve([...node.sessions()].map((session) => ({
      id: session.id,
      initiator: session.initiator,
      volume: session.target?.replace(`${iqnPrefix}:`, "") ?? "(discovery)",
      member: `${hostName} (initiator-proxy)`,
      portal: session.portal,
      remote: session.remote,
      commands: session.commands,
      bytes: session.bytesRead + session.bytesWritten,
      forwarded: 0,
      shortcut: 0,
      multipathId: null,
      commandsPerS: 0,
      bytesPerS: 0,
      servedAt: {},
    })));
  }

  members(): Promise<never> {
    return refuse();
  }

  route(): Promise<never> {
    return refuse();
  }

  createVolume(): Promise<never> {
    return refuse();
  }

  setVolume(): Promise<never> {
    return refuse();
  }

  resizeVolume(): Promise<never> {
    return refuse();
  }

  deleteVolume(): Promise<never> {
    return refuse();
  }

  moveSession(): Promise<never> {
    return refuse();
  }

  balance(): Promise<never> {
    return refuse();
  }

  runBalance(): Promise<never> {
    return refuse();
  }

  setBalancePolicy(): Promise<never> {
    return refuse();
  }

  drainMember(): Promise<never> {
    return refuse();
  }

  removeMember(): Promise<never> {
    return refuse();
  }

  #volume(volume: ProxyVolume): VolumeReport | null {
    const { server } = volume;
    if (server === null) return null;
    const { settings } = server;
    return {
      name: volume.name,
      iqn: settings.targetName,
      sizeBytes: settings.sizeBytes,
      blockBytes: settings.blockBytes,
      pageBytes: settings.pageBytes,
      allocatedBytes: 0,
      epoch: volume.report().epoch,
      identifier: `naa.${naaIdentifier(settings.identifier).toHex()}`,
      writeCache: settings.writeCache,
      writeProtected: settings.writeProtected,
      volumeClass: null,
      initiators: null,
      chapUser: null,
      mutualUser: null,
      state: "online",
      sessions: [...this.#parts.node.sessions()].filter((s) => s.target === settings.targetName).length,
    };
  }
}

function refuse(): Promise<never> {
  const what =
    "This is an initiator-proxy, which knows its own volumes only. Ask a member of the group: --api or --config of one.";
  return Promise.reject(new ControlError("invalid", what));
}
