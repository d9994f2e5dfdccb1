// How every command finds the group: by the configuration file, or by the address of a member's admin API.

import type { Command } from "commander";
import { formatSocketAddress, type SocketAddress } from "../lib/base/network.ts";
import type { AgentConfig } from "../lib/config/mod.ts";
import { AdminClient } from "../lib/mgmt/http_client.ts";
import { readToken } from "../lib/mgmt/http_token.ts";
import { CommandError, usageError } from "./terminal.ts";
import { readConfigFile } from "./config_file.ts";
import { roles } from "./role_config.ts";

export interface GroupOptions {
  readonly config?: string;
  readonly api?: string;
  readonly tokenFile?: string;
  readonly json?: boolean;
}

export const configDefault = "appliance.toml";

export function addGroupOptions(command: Command): Command {
  return command
    .option("-c, --config <file>", `configuration of the member (default: "${configDefault}")`)
    .option("--api <url>", "admin address of the member, instead of --config (http://127.0.0.1:3280)")
    .option("--token-file <file>", "file with the admin token, for changes (default: state_dir/admin.token)")
    .option("--json", "print JSON");
}

/** The member's admin API. Reads the configuration now, the token only when a change needs it. */
export function openGroup(options: GroupOptions): Promise<AdminClient> {
  return open(options, (file) => {
    throw usageError(
      `"${file}" is a host agent's, which knows its own devices only. Ask a member: --api or --config of one.`,
    );
  });
}

/** The same, or a host agent's. */
export function openAny(options: GroupOptions): Promise<AdminClient> {
  return open(options, (file, { agent }) => {
    if (agent.admin !== null) return agent.admin;
    throw usageError(
      `"${file}" has no address to ask the host agent at. Add admin = "127.0.0.1:3283" to [agent] and start it again.`,
    );
  });
}

async function open(
  { api, config, tokenFile }: GroupOptions,
  agentAddress: (file: string, config: AgentConfig) => SocketAddress,
): Promise<AdminClient> {
  if (api !== undefined && config !== undefined) {
    throw usageError("Give either --config or --api: each of them names the member.");
  }
  if (api !== undefined) return new AdminClient(apiUrl(api), () => token(tokenFile, null));
  const file = config ?? configDefault;
  const found = await readConfigFile(file);
  const { admin, stateDir } = found.role === "member"
    ? found.member
    : found.role === "proxy"
    ? found.proxy
    : { admin: agentAddress(file, found), stateDir: null };
  return new AdminClient(
    apiUrl(formatSocketAddress(admin)),
    () => token(tokenFile, stateDir),
    roles[found.role],
  );
}

function apiUrl(text: string): URL {
  const full = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  const url = URL.parse(full);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== "" || !/^\/?$/.test(url.pathname)) {
    throw usageError(
      `Cannot use --api "${text}": it is no address of a member. Give one like http://127.0.0.1:3280.`,
    );
  }
  return url;
}

async function token(file: string | undefined, stateDir: string | null): Promise<string> {
  if (file === undefined && stateDir === null) {
    throw usageError(
      "A change over --api needs --token-file FILE: a copy of admin.token from the member's state_dir.",
    );
  }
  const path = file ?? `${stateDir}/admin.token`;
  const found = await readToken(path).catch((error: Error) => {
    throw new CommandError(error.message);
  });
  if (found === null) {
    throw usageError(
      `There is no admin token at "${path}". The member's first start makes it; ` +
        `start the member, or name the file with --token-file.`,
    );
  }
  return found;
}
