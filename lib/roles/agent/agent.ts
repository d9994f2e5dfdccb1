// The role "host agent" (docs/initiator-proxy.md): keeps a device-mapper switch device for each of a group's volumes, so that this
// machine's kernel sends each request to the member that has the page, and no process is in the way of the data. Everything
// of the world is handed in.

import type { Clock } from "../../base/clock.ts";
import type { HostSystem } from "../../base/host_system.ts";
import type { Log } from "../../base/log.ts";
import type { Network } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import type { AgentConfig } from "../../config/config.ts";
import { targetName as targetNameOf } from "../../config/name.ts";
import { proxyName, proxyProofs } from "../../forward/mod.ts";
import type { AgentControl, AgentReport } from "../../mgmt/agent_control.ts";
import { version } from "../../mgmt/version.ts";
import { diskOf } from "../proxy/disk_number.ts";
import { AgentVolume } from "./agent_volume.ts";
import { DeviceMapper, HostError } from "./device_mapper.ts";
import { daemonProblem, OpenIscsi } from "./open_iscsi.ts";

export interface AgentParts {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly network: Network;
  readonly log: Log;
  readonly system: HostSystem;
  /** The group's. */
  readonly secret: string;
  /** 16 bytes, random, of this host: the same at every start. */
  readonly host: Uint8Array;
  readonly hostName: string;
}

export class Agent implements AgentControl {
  readonly #parts: AgentParts;
  readonly #group: string;
  readonly #startedMs: number;
  readonly #iscsi: OpenIscsi;
  readonly #volumes: readonly AgentVolume[];

  /** Rejects with a HostError when this machine cannot do it; a group that is down is waited for. */
  static async start(config: AgentConfig, parts: AgentParts): Promise<Agent> {
    if (!parts.system.privileged) {
      throw new HostError(
        "Cannot make block devices: this needs root. Start the agent with sudo, or as a service.",
      );
    }
    const agent = new Agent(config, parts);
    await new DeviceMapper(parts.system).prepare();
    await agent.#iscsi.prepare();
    for (const volume of agent.#volumes) volume.start();
    return agent;
  }

  private constructor(config: AgentConfig, parts: AgentParts) {
    const { group, agent } = config;
    const { system, host, secret, clock } = parts;
    const initiatorName = proxyName(group.iqnPrefix, host.toHex());
    const interfaceName = `plimsoll-${host.toHex().slice(0, 8)}`;
    const mapper = new DeviceMapper(system);
    this.#parts = parts;
    this.#group = group.name;
    this.#startedMs = clock.nowMs();
    this.#iscsi = new OpenIscsi({ system, clock, initiatorName, interfaceName });
    this.#volumes = agent.volumes.map((name) => {
      const targetName = targetNameOf(group.iqnPrefix, name);
      return new AgentVolume({
        ...parts,
        mapper,
        iscsi: this.#iscsi,
        iqnPrefix: group.iqnPrefix,
        name,
        targetName,
        disk: diskOf(host, name),
        silenceMs: agent.pathTimeoutMs,
        groupPortals: agent.groupPortals,
        proofs: proxyProofs(secret, initiatorName, targetName),
      });
    });
  }

  async report(): Promise<AgentReport> {
    const { clock, hostName, system } = this.#parts;
    const problem = await daemonProblem(system);
    return {
      role: "host-agent",
      group: this.#group,
      host: hostName,
      version,
      uptimeMs: Math.round(clock.nowMs() - this.#startedMs),
      problems: problem === null ? [] : [problem],
      volumes: this.#volumes.map((volume) => volume.report()),
    };
  }

  /** Takes the devices down, or leaves them as they are; false: one is in use and stays. */
  async stop(keep: boolean): Promise<boolean> {
    const gone = await Promise.all(this.#volumes.map((volume) => volume.stop(keep)));
    if (keep || gone.includes(false)) return !gone.includes(false);
    await this.#iscsi.close().catch((error: Error) => this.#parts.log.warn(error.message));
    return true;
  }
}
