// The part of the configuration file that finds the member.

import { getStaticTOMLValue, parseTOML } from "toml-eslint-parser";
import { CommandError } from "./terminal.ts";

export interface MemberAddress {
  readonly adminUrl: string;
  /** Directory with admin.token. */
  readonly stateDir: string;
}

export async function readConfigFile(path: string): Promise<MemberAddress> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    throw new CommandError(
      `Cannot read the configuration "${path}": ${
        (error as Error).message
      }. Name the file with --config, or the member with --api.`,
    );
  }
  const value = getStaticTOMLValue(parseTOML(text)) as { member: { admin: string; state_dir: string } };
  const directory = path.includes("/") ? path.slice(0, path.lastIndexOf("/") + 1) : "";
  const stateDir = value.member.state_dir;
  return {
    adminUrl: `http://${value.member.admin}`,
    stateDir: stateDir.startsWith("/") ? stateDir : directory + stateDir,
  };
}
