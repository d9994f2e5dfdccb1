// plimsoll host-agent: keep a device-mapper switch device for each volume until it is told to stop.

import type { Log } from "../lib/base/log.ts";
import { formatSocketAddress } from "../lib/base/network.ts";
import type { AgentConfig } from "../lib/config/mod.ts";
import { hostSystem } from "../lib/io/host_system.ts";
import { PortableNetwork } from "../lib/io/portable_network.ts";
import { lockStateDirectory, type StateLock } from "../lib/io/state_lock.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import { ControlError } from "../lib/mgmt/control.ts";
import { startAgentServer } from "../lib/mgmt/agent_server.ts";
import type { AdminServer } from "../lib/mgmt/http_listener.ts";
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
  const running = await start(config, log);
  const { admin, volumes } = config.agent;
  log.info("keeping devices", {
    volumes: volumes.join(" "),
    ...(admin === null ? {} : { admin: `http://${formatSocketAddress(admin)}` }),
  });
  const signal = await stop.received;
  log.info("stopping", { signal, keep: options.keep === true });
  const gone = await running.stop(options.keep === true);
  log.info("stopped");
  stop.forget();
  return gone ? 0 : 1;
}

interface Running {
  /** False: a device is in use and stays. */
  stop(keep: boolean): Promise<boolean>;
}

/** What was opened is closed again when a later part fails. */
async function start(config: AgentConfig, log: Log): Promise<Running> {
  const { stateDir, admin: address } = config.agent;
  let lock: StateLock | null = null;
  let agent: Agent | null = null;
  let admin: AdminServer | null = null;
  const stop = async (keep: boolean) => {
    await admin?.close();
    const gone = await agent?.stop(keep) ?? true;
    lock?.release();
    return gone;
  };
  try {
    lock = await lockStateDirectory(stateDir);
    // Before anything is made: the address may be taken.
    const report = () =>
      agent?.report() ?? Promise.reject(new ControlError("unavailable", "The agent is starting."));
    if (address !== null) admin = startAgentServer({ address, control: { report }, log });
    agent = await Agent.start(config, {
      clock: systemClock,
      random: systemRandom,
      network: new PortableNetwork(),
      log,
      system: hostSystem,
      secret: await groupSecret(config.group.secretFile),
      host: await hostNumber(`${stateDir}/host`),
      hostName: Deno.hostname(),
    });
    return { stop };
  } catch (error) {
    await stop(true);
    throw error instanceof Error ? new CommandError(error.message) : error;
  }
}
