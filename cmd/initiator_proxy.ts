// plimsoll initiator-proxy: show a group's volumes on a portal of this machine until it is told to stop.

import type { Log } from "../lib/base/log.ts";
import { formatSocketAddress } from "../lib/base/network.ts";
import type { ProxyConfig } from "../lib/config/mod.ts";
import { guardWriteBack } from "../lib/io/libc.ts";
import { PortableNetwork } from "../lib/io/portable_network.ts";
import { lockStateDirectory, type StateLock } from "../lib/io/state_lock.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import { type AdminServer, startAdminServer } from "../lib/mgmt/http_server.ts";
import { loadOrMakeToken } from "../lib/mgmt/http_token.ts";
import { Proxy } from "../lib/roles/proxy/proxy.ts";
import { setUpLogging } from "./logging.ts";
import { groupSecret, hostNumber } from "./host_identity.ts";
import { endOnOwnMistakes } from "./own_mistakes.ts";
import { readRoleConfig } from "./role_config.ts";
import { readSecretFile } from "./secret_file.ts";
import type { ServeOptions } from "./serve_options.ts";
import { stopSignal } from "./stop_signal.ts";
import { CommandError } from "./terminal.ts";

/** Resolves with the exit code once the proxy has stopped. */
export async function runInitiatorProxy(options: ServeOptions): Promise<number> {
  const log = await setUpLogging({ level: options.logLevel, format: options.logFormat });
  const config = await readRoleConfig("proxy", options.config, (line) => log.warn(line));
  endOnOwnMistakes(log, () => Deno.exit(70)); // EX_SOFTWARE: systemd starts the proxy again
  const stop = stopSignal();
  const running = await start(config, log);
  const trouble = guardWriteBack();
  if (trouble !== null) {
    log.warn(
      `${trouble} Until then memory pressure may stop writes to volumes that come through this proxy.`,
    );
  }
  log.info("serving", {
    listen: formatSocketAddress(config.proxy.listen),
    admin: `http://${formatSocketAddress(config.proxy.admin)}`,
  });
  const signal = await stop.received;
  log.info("stopping", { signal });
  await running.stop((step) => log.info(step));
  stop.forget();
  return 0;
}

interface Running {
  stop(progress: (step: string) => void): Promise<void>;
}

/** What was opened is closed again when a later part fails. */
async function start(config: ProxyConfig, log: Log): Promise<Running> {
  let lock: StateLock | null = null;
  let proxy: Proxy | null = null;
  let admin: AdminServer | null = null;
  const stop = async (progress: (step: string) => void = () => {}) => {
    await admin?.close();
    await proxy?.stop(progress);
    lock?.release();
  };
  try {
    lock = await lockStateDirectory(config.proxy.stateDir);
    const token = await loadOrMakeToken(`${config.proxy.stateDir}/admin.token`, systemRandom);
    proxy = await Proxy.start(config, {
      clock: systemClock,
      random: systemRandom,
      network: new PortableNetwork(),
      log,
      secret: await groupSecret(config.group.secretFile),
      host: await hostNumber(`${config.proxy.stateDir}/host`),
      hostName: Deno.hostname(),
      readSecretFile,
      engine: { name: "portable", reason: "an initiator-proxy has no other" },
    });
    admin = startAdminServer({ address: config.proxy.admin, control: proxy.control, token, log });
    return { stop };
  } catch (error) {
    await stop();
    throw error instanceof Error ? new CommandError(error.message) : error;
  }
}
