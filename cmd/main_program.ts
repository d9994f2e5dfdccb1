// The tree of commands. One file a command; this one joins them, and turns whatever happened into an exit code.

import { Command, CommanderError, Option } from "commander";
import { AdminError } from "../lib/mgmt/http_client.ts";
import { registerAttach } from "./attach.ts";
import { registerBalance } from "./balance.ts";
import { registerBench } from "./bench.ts";
import { registerCompletions } from "./completions.ts";
import { registerConfig } from "./config.ts";
import { registerDecode } from "./decode.ts";
import { registerDisk } from "./disk.ts";
import { registerDoctor } from "./doctor.ts";
import { configDefault } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { logFormats, logLevels } from "./logging.ts";
import { registerMember } from "./member.ts";
import { registerRoute } from "./route.ts";
import { registerSession } from "./session.ts";
import { registerStatus } from "./status.ts";
import type { HostAgentOptions } from "./host_agent.ts";
import type { ServeOptions } from "./serve_options.ts";
import { CommandError, type Terminal } from "./terminal.ts";
import { versionText } from "./version.ts";
import { registerVolume } from "./volume.ts";

/** Runs the program with these arguments; resolves with its exit code. */
export async function runProgram(args: readonly string[], terminal: Terminal): Promise<number> {
  const result = { exitCode: 0 };
  const program = buildProgram(terminal, result);
  try {
    await program.parseAsync([...args], { from: "user" });
    return result.exitCode;
  } catch (error) {
    return exitCodeOf(error, terminal);
  }
}

function exitCodeOf(error: unknown, terminal: Terminal): number {
  if (error instanceof CommanderError) {
    // Commander has printed already. Help or version that was asked for is 0; everything else is wrong usage.
    return error.exitCode === 0 ? 0 : 2;
  }
  if (error instanceof CommandError || error instanceof AdminError) {
    terminal.err(`plimsoll: ${error.message}\n`);
    return error instanceof CommandError ? error.exitCode : 1;
  }
  terminal.err(`plimsoll: ${error instanceof Error ? error.stack ?? error.message : String(error)}\n`);
  return 1;
}

/** The whole tree; `result` takes the exit code of commands that have one of their own. */
export function buildProgram(terminal: Terminal, result: { exitCode: number }): Command {
  const program = new Command("plimsoll")
    .description("Plimsoll, a scale-out iSCSI SAN")
    .version(versionText(), "-V, --version", "print the versions of Plimsoll and Deno")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
      getOutHelpWidth: () => terminal.columns,
      getErrHelpWidth: () => terminal.columns,
      getOutHasColors: () => terminal.colours,
      getErrHasColors: () => terminal.colours,
      outputError: (text, write) => write(text.replace(/^error: /, "plimsoll: ")),
    })
    .showHelpAfterError("Add --help to see how it is used.");
  registerTarget(program, result);
  registerInitiatorProxy(program, result);
  registerHostAgent(program, result);
  registerStatus(program, terminal);
  registerAttach(program, terminal);
  registerVolume(program, terminal);
  registerRoute(program, terminal);
  registerMember(program, terminal);
  registerSession(program, terminal);
  registerBalance(program, terminal);
  registerDisk(program, terminal, result);
  registerConfig(program, terminal, result);
  registerBench(program, terminal, result);
  registerDoctor(program, terminal, result);
  registerDecode(program, terminal);
  registerCompletions(program, terminal);
  withExamples(program, [
    "plimsoll target --config appliance.toml",
    "plimsoll status",
    "plimsoll volume create vol1 --size 10GiB",
    "plimsoll attach vol1 --for linux",
  ]);
  return program;
}

function registerInitiatorProxy(program: Command, result: { exitCode: number }): void {
  const command = addServeOptions(program.command("initiator-proxy"), "configuration of the proxy")
    .description(
      "show a group's volumes on this machine and send each request to the member that has the page",
    )
    .action(async (options: ServeOptions) => {
      const { runInitiatorProxy } = await import("./initiator_proxy.ts");
      result.exitCode = await runInitiatorProxy(options);
    });
  withExamples(command, [
    "plimsoll initiator-proxy --config proxy.toml",
    "plimsoll status --config proxy.toml",
  ]);
}

function registerHostAgent(program: Command, result: { exitCode: number }): void {
  const command = addServeOptions(program.command("host-agent"), "configuration of the agent")
    .description(
      "keep a dm-switch device of each volume, so that the kernel sends each request to its member",
    )
    .option("--keep", "leave the devices and sessions as they are at the end")
    .action(async (options: HostAgentOptions) => {
      const { runHostAgent } = await import("./host_agent.ts");
      result.exitCode = await runHostAgent(options);
    });
  withExamples(command, [
    "sudo plimsoll host-agent --config agent.toml",
    "sudo plimsoll host-agent --config agent.toml --keep --log-format json",
  ]);
}

function addServeOptions(command: Command, config: string): Command {
  return command
    .option("-c, --config <file>", config, configDefault)
    .addOption(
      new Option("--log-level <level>", "least level that is logged").choices(logLevels).default("info"),
    )
    .addOption(
      new Option("--log-format <format>", "form of log lines on stderr").choices(logFormats).default("text"),
    );
}

function registerTarget(program: Command, result: { exitCode: number }): void {
  const command = addServeOptions(program.command("target"), "configuration of the member")
    .description("serve: run the member of a configuration file until SIGTERM")
    .action(async (options: ServeOptions) => {
      const { runTarget } = await import("./target.ts");
      result.exitCode = await runTarget(options);
    });
  withExamples(command, [
    "plimsoll target",
    "plimsoll target --config /etc/plimsoll/appliance.toml --log-format json",
  ]);
}
