// The role "initiator-proxy" (docs/initiator-proxy.md): shows volumes of a group on a portal of this machine and carries each
// block operation to the member that has the page. The parts are a member's own: session, device server, forwarding; there
// is no store. Everything of the world is handed in.

import { BufferPool } from "../../base/buffer_pool.ts";
import type { Clock } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import type { Network } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import type { ChapConfig, ProxyConfig } from "../../config/config.ts";
import { chapSecretOfFile } from "../../config/secret.ts";
import type { ChapRecord } from "../../meta/records.ts";
import type { MemberControl } from "../../mgmt/control.ts";
import { revisionLevel } from "../../mgmt/version.ts";
import type {
  LookupResult,
  TargetDirectory,
  TargetPortal,
  TargetRecord,
} from "../../session/target_directory.ts";
import { TargetNode } from "../../session/target_node.ts";
import { ownBuffersBytes } from "../../session/session_buffers.ts";
import { accessRuleOf, mayUse } from "../target/access.ts";
import { Portals } from "../target/portals.ts";
import { diskOf } from "./disk_number.ts";
import { ProxyControl } from "./proxy_control.ts";
import { ProxyVolume } from "./proxy_volume.ts";

export interface ProxyParts {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly network: Network;
  readonly log: Log;
  /** The group's. */
  readonly secret: string;
  /** 16 bytes, random, of this host: the same at every start. */
  readonly host: Uint8Array;
  readonly hostName: string;
  readonly readSecretFile: (path: string) => Promise<string>;
  readonly engine: { readonly name: string; readonly reason: string };
  /** Absent: limits.dataBufferBytesMax of them. */
  readonly dataBufferBytes?: number;
}

/** Tags of proxies lie behind all that a group gives its members: one disk must not have two groups of one number. */
const firstTag = 0x8000;

export class Proxy implements TargetDirectory {
  readonly control: MemberControl;
  readonly #parts: ProxyParts;
  readonly #config: ProxyConfig;
  readonly #volumes = new Map<string, ProxyVolume>();
  readonly #node: TargetNode;
  readonly #portals: Portals;
  readonly #access: { readonly chap: ChapRecord | null; readonly mutual: ChapRecord | null };
  readonly #tag: number;
  #stopped: Promise<void> | null = null;

  /** Rejects when the portal's port is taken or a secret cannot be used; a group that is down is waited for. */
  static async start(config: ProxyConfig, parts: ProxyParts): Promise<Proxy> {
    const read = (chap: ChapConfig | null) => chap === null ? null : readChap(chap, parts.readSecretFile);
    const access = { chap: await read(config.proxy.chap), mutual: await read(config.proxy.mutual) };
    const proxy = new Proxy(config, parts, access);
    await proxy.#portals.open(config.proxy.listen);
    for (const volume of proxy.#volumes.values()) volume.start();
    return proxy;
  }

  private constructor(
    config: ProxyConfig,
    parts: ProxyParts,
    access: { readonly chap: ChapRecord | null; readonly mutual: ChapRecord | null },
  ) {
    this.#config = config;
    this.#parts = parts;
    this.#access = access;
    this.#tag = firstTag + (((parts.host[0]! << 8) | parts.host[1]!) & 0x7fff);
    const { clock, random, network, log } = parts;
    const bufferBytes = parts.dataBufferBytes ?? limits.dataBufferBytesMax;
    this.#node = new TargetNode({
      clock,
      random,
      log,
      pool: new BufferPool(bufferBytes, ownBuffersBytes(bufferBytes)),
      directory: this,
      relativeTargetPort: this.#tag,
    });
    this.#portals = new Portals(network, clock, log, (address, stream) => {
      return this.#node.accept({ address, targetPortalGroupTag: this.#tag }, stream);
    });
    for (const name of config.proxy.volumes) this.#volumes.set(this.#targetName(name), this.#volume(name));
    this.control = new ProxyControl({
      clock,
      group: config.group.name,
      hostName: parts.hostName,
      engine: parts.engine,
      iqnPrefix: config.group.iqnPrefix,
      volumes: [...this.#volumes.values()],
      node: this.#node,
      portals: () => this.#portals.states(),
      tag: this.#tag,
      ready: () => this.#stopped === null && [...this.#volumes.values()].every((v) => v.server !== null),
    });
  }

  /** Finishes what is in flight, then ends. `progress` gets a sentence a step. */
  stop(progress: (step: string) => void = () => {}): Promise<void> {
    this.#stopped ??= this.#stop(progress);
    return this.#stopped;
  }

  async #stop(progress: (step: string) => void): Promise<void> {
    progress("no more logins; finishing commands in flight");
    await this.#portals.close();
    await new Promise<void>((done) => this.#node.stop(done));
    await Promise.all([...this.#volumes.values()].map((volume) => volume.close("the proxy stops")));
    progress("stopped");
  }

  // TargetDirectory

  lookup(targetName: string, initiatorName: string, portal: TargetPortal): LookupResult {
    const volume = this.#volumes.get(targetName);
    if (volume === undefined) return { kind: "notFound" };
    if (!this.#mayUse(initiatorName, portal)) return { kind: "forbidden" };
    const record = this.#record(targetName, volume);
    return record === null ? { kind: "unavailable" } : { kind: "found", target: record };
  }

  visible(initiatorName: string, portal: TargetPortal): readonly TargetRecord[] {
    if (!this.#mayUse(initiatorName, portal)) return [];
    return [...this.#volumes].flatMap(([name, volume]) => this.#record(name, volume) ?? []);
  }

  portalsOf(_target: TargetRecord, portal: TargetPortal): readonly TargetPortal[] {
    return [portal];
  }

  #mayUse(initiatorName: string, portal: TargetPortal): boolean {
    const { initiators } = this.#config.proxy;
    return mayUse({ initiators, chap: this.#access.chap }, initiatorName, portal.address);
  }

  #record(name: string, volume: ProxyVolume): TargetRecord | null {
    if (volume.server === null) return null;
    return { name, alias: volume.name, access: accessRuleOf(this.#access), deviceServer: volume.server };
  }

  #targetName(volume: string): string {
    return `${this.#config.group.iqnPrefix}:${volume}`;
  }

  #volume(name: string): ProxyVolume {
    const { group, proxy } = this.#config;
    const { clock, random, network, log, secret, host, hostName } = this.#parts;
    const targetName = this.#targetName(name);
    return new ProxyVolume({
      clock,
      random,
      network,
      log,
      secret,
      host,
      hostName,
      iqnPrefix: group.iqnPrefix,
      targetName,
      disk: diskOf(host, name),
      silenceMs: proxy.pathTimeoutMs,
      name,
      groupPortals: proxy.groupPortals,
      routeTable: proxy.routeTable,
      targetPortalGroupTag: this.#tag,
      revision: revisionLevel,
      dropSessions: (reason) => this.#node.dropTarget(targetName, reason),
    });
  }
}

async function readChap(chap: ChapConfig, read: (path: string) => Promise<string>): Promise<ChapRecord> {
  const { user, secret } = chap;
  if (secret.kind === "inline") return { user, secret: secret.secret };
  return { user, secret: chapSecretOfFile(secret.path, await read(secret.path)) };
}
