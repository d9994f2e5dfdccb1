// A member that is only its answers: volumes in memory, nothing behind them.

import {
  type BalanceOpinion,
  type BalanceReport,
  ControlError,
  type MemberControl,
  type MemberReport,
  type MoveReport,
  type RouteReport,
  type SessionReport,
  type StatusReport,
  type VolumeChange,
  type VolumeCreation,
  type VolumeReport,
} from "../../lib/mgmt/control.ts";
import type { DrainPurpose } from "../../lib/meta/records.ts";

const GiB = 1024 ** 3;

export function volumeReport(name: string, change: Partial<VolumeReport> = {}): VolumeReport {
  return {
    name,
    iqn: `iqn.2026-11.net.plimsoll.demo:${name}`,
    sizeBytes: 4 * GiB,
    blockBytes: 512,
    pageBytes: 4 * 1024 ** 2,
    allocatedBytes: 1 * GiB,
    epoch: 1,
    identifier: "naa.30123456789abcde",
    writeCache: true,
    writeProtected: false,
    volumeClass: "normal",
    initiators: null,
    chapUser: null,
    mutualUser: null,
    state: "online",
    sessions: 0,
    ...change,
  };
}

export class FakeControl implements MemberControl {
  isReady = true;
  volumes: VolumeReport[] = [volumeReport("vol0")];
  sessionList: SessionReport[] = [];
  notices: string[] = [];
  engine: StatusReport["engine"] = { name: "portable", reason: "test" };
  memberList: MemberReport[] = [{
    name: "alpha",
    id: "a".repeat(32),
    state: "up",
    portals: ["127.0.0.1:3260", "[::1]:3260"],
    targetPortalGroupTag: 1,
    peer: "127.0.0.1:3262",
    program: "0.1.0",
    host: "san1",
    pid: 4711,
    bootId: "b".repeat(36),
    sinceMs: Date.UTC(2026, 10, 27, 12),
    leaseLeftMs: 7_600,
    drain: null,
  }, {
    name: "beta",
    id: "b".repeat(32),
    state: "down",
    portals: [],
    targetPortalGroupTag: 2,
    peer: null,
    program: null,
    host: null,
    pid: null,
    bootId: null,
    sinceMs: null,
    leaseLeftMs: null,
    drain: { purpose: "leave", pagesLeft: 12, leftMs: 40_000 },
  }];
  /** What was asked, with secrets, in order. */
  readonly calls: unknown[][] = [];
  /** Thrown by the next change. */
  failure: Error | null = null;

  ready(): boolean {
    return this.isReady;
  }

  status(): Promise<StatusReport> {
    return Promise.resolve({
      group: "demo",
      member: "alpha",
      version: "0.1.0",
      engine: this.engine,
      uptimeMs: 3_723_000,
      notices: this.notices,
      members: [{
        name: "alpha",
        state: "up",
        portals: [
          { address: "127.0.0.1:3260", state: "listening", targetPortalGroupTag: 1 },
          {
            address: "[::1]:3260",
            state: "waiting",
            reason: "address is not there",
            targetPortalGroupTag: 1,
          },
        ],
        load: { connections: 1, sessions: 1, commands: 1204, bytesRead: 5 * GiB, bytesWritten: GiB },
        now: null,
      }],
      volumes: this.volumes,
      disks: [{
        id: "0".repeat(32),
        path: "var/alpha/disk0.img",
        member: "alpha",
        sizeBytes: 8 * GiB,
        usableBytes: 8 * GiB - 8 * 1024 ** 2,
        allocatedBytes: 1 * GiB,
        state: "online",
      }],
      moves: { pages: 0, bytes: 0, failures: 0, moving: 0 },
      silentConnections: 2,
      refusedConnections: 0,
    });
  }

  opinion: BalanceOpinion | null = {
    session: 7,
    initiator: "iqn.2026-01.example:host",
    volume: "vol0",
    to: "beta",
    verdict: "move",
    total: 0.65,
    terms: [{ name: "load", value: 0.75, why: "takes 100 of the 267" }],
  };

  async moveSession(id: number, to: string, live: boolean): Promise<MoveReport> {
    await this.#called("move", id, to, live);
    return { how: live ? "live" : "logout", pauseMs: live ? 3.25 : null, because: null };
  }

  balance(): Promise<BalanceReport> {
    return Promise.resolve({
      member: "alpha",
      policy: "affinity",
      settings: { workMin: 1, deadBand: 0.25, settleMs: 1, dwellMs: 1, movesMax: 2, logoutSeconds: 3 },
      average: 133,
      members: [
        {
          name: "alpha",
          draining: false,
          sessions: 4,
          work: 400,
          excess: 2,
          accessesPerS: 1200,
          accessUs: 350,
        },
      ],
      pages: {
        moving: { volume: "vol0", pages: 8, to: "beta", reason: "heat" },
        heat: 'too hot for 200 s of at least 180: an access takes 9000 µs here, 350 µs at "beta"',
        hotPages: 16,
        coldPages: 8,
      },
      moves: 3,
      next: this.opinion,
      opinions: this.opinion === null ? [] : [this.opinion],
    });
  }

  async runBalance(): Promise<BalanceOpinion | null> {
    await this.#called("run");
    return this.opinion;
  }

  async setBalancePolicy(policy: string): Promise<void> {
    await this.#called("policy", policy);
  }

  route(volume: string): Promise<RouteReport> {
    const { name, epoch, pageBytes } = this.#find(volume);
    const pages = ["alpha", "beta", "beta", "alpha"];
    return Promise.resolve({
      volume: name,
      epoch,
      pageBytes,
      runs: [["alpha", 1], ["beta", 2], ["alpha", 1]],
      allocated: { alpha: 1, beta: 0 },
      pages,
    });
  }

  members(): Promise<MemberReport[]> {
    return Promise.resolve(this.memberList);
  }

  sessions(): Promise<SessionReport[]> {
    return Promise.resolve(this.sessionList);
  }

  async createVolume(creation: VolumeCreation): Promise<VolumeReport> {
    await this.#called("create", creation);
    if (this.volumes.some((v) => v.name === creation.name)) {
      throw new ControlError(
        "conflict",
        `Cannot make volume "${creation.name}": it exists. Take another name.`,
      );
    }
    const volume = volumeReport(creation.name, { sizeBytes: creation.sizeBytes, allocatedBytes: 0 });
    this.volumes.push(volume);
    return volume;
  }

  async setVolume(name: string, change: VolumeChange): Promise<VolumeReport> {
    await this.#called("set", name, change);
    const volume = this.#find(name);
    if (change.writeCache !== undefined) volume.writeCache = change.writeCache;
    if (change.writeProtected !== undefined) volume.writeProtected = change.writeProtected;
    if (change.volumeClass !== undefined) volume.volumeClass = change.volumeClass;
    if (change.initiators !== undefined) volume.initiators = change.initiators && [...change.initiators];
    if (change.chap !== undefined) volume.chapUser = change.chap?.user ?? null;
    if (change.mutual !== undefined) volume.mutualUser = change.mutual?.user ?? null;
    return volume;
  }

  async resizeVolume(name: string, sizeBytes: number): Promise<VolumeReport> {
    await this.#called("resize", name, sizeBytes);
    const volume = this.#find(name);
    volume.sizeBytes = sizeBytes;
    return volume;
  }

  async drainMember(name: string, purpose: DrainPurpose | null): Promise<void> {
    await this.#called("drain", name, purpose);
  }

  async removeMember(name: string): Promise<void> {
    await this.#called("remove", name);
  }

  async deleteVolume(name: string): Promise<void> {
    await this.#called("delete", name);
    this.volumes = this.volumes.filter((v) => v !== this.#find(name));
  }

  #called(...call: unknown[]): Promise<void> {
    this.calls.push(call);
    const failure = this.failure;
    this.failure = null;
    return failure === null ? Promise.resolve() : Promise.reject(failure);
  }

  #find(name: string): VolumeReport {
    const volume = this.volumes.find((v) => v.name === name);
    if (volume === undefined) throw new ControlError("notFound", `There is no volume "${name}".`);
    return volume;
  }
}
