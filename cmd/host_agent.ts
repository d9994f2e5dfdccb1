// plimsoll host-agent: keep a device-mapper switch device for each volume until it is told to stop.

import type { Log } from "../lib/base/log.ts";
import type { AgentConfig } from "../lib/config/mod.ts";
import { hostSystem } from "../lib/io/host_system.ts";
import { PortableNetwork } from "../lib/io/portable_network.ts";
import { lockStateDirectory, type StateLock } from "../lib/io/state_lock.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import { Agent } from "../lib/roles/agent/agent.ts";
import { groupSecret, hostNumber } from "./host_identity.ts";
import { setUpLogging } from "./logging.ts";
import { endOnOwnMistakes } from "./own_mistakes.ts";
import { readRoleConfig } from "./role_config.ts";
import type { ServeOptions } from "./serve_options.ts";
import { stopSignal } from "./stop_signal.ts";
import { CommandError } from "./terminal.ts";

export interface HostAgentOptions extends ServeOptions {
  readonly keep?: boolean;
}

/** Resolves with the exit code once the agent has stopped: 1 when a device was in use and stays. */
export async function runHostAgent(options: HostAgentOptions): Promise<number> {
  const log = await setUpLogging({ level: options.logLevel, format: options.logFormat });
  const config = await readRoleConfig("agent", options.config, (line) => log.warn(line));
  endOnOwnMistakes(log, () => Deno.exit(70)); // EX_SOFTWARE: systemd starts the agent again; the devices stay
  const stop = stopSignal();
  const { agent, lock } = await start(config, log);
  log.info("keeping devices", { volumes: config.agent.volumes.join(" ") });
  const signal = await stop.received;
  log.info("stopping", { signal, keep: options.keep === true });
  const gone = await agent.stop(options.keep === true);
  lock.release();
  log.info("stopped");
  stop.forget();
  return gone ? 0 : 1;
}

async function start(config: AgentConfig, log: Log): Promise<{ agent: Agent; lock: StateLock }> {
  const { stateDir } = config.agent;
  let lock: StateLock | null = null;
  try {
    lock = await lockStateDirectory(stateDir);
    const agent = await Agent.start(config, {
      clock: systemClock,
      random: systemRandom,
      network: new PortableNetwork(),
      log,
      system: hostSystem,
      secret: await groupSecret(config.group.secretFile),
      host: await hostNumber(`${stateDir}/host`),
      hostName: Deno.hostname(),
    });
    return { agent, lock };
  } catch (error) {
    lock?.release();
    throw error instanceof Error ? new CommandError(error.message) : error;
  }
}
