// plimsoll completions: scripts for shells, generated from the tree of commands, so that they cannot fall behind it.

import { type Command, Option } from "commander";
import { bashScript } from "./completions_bash.ts";
import { fishScript } from "./completions_fish.ts";
import { zshScript } from "./completions_zsh.ts";
import { withExamples } from "./help.ts";
import type { Terminal } from "./terminal.ts";

const scripts = { bash: bashScript, zsh: zshScript, fish: fishScript };

export interface CompletedOption {
  /** "--config", "-c" */
  readonly flags: readonly string[];
  readonly description: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
  readonly takesFile: boolean;
}

export interface CompletedCommand {
  /** "" for the program, " volume create" for a subcommand: every word with a blank before it. */
  readonly path: string;
  readonly name: string;
  readonly description: string;
  readonly options: readonly CompletedOption[];
  readonly children: readonly CompletedCommand[];
  /** Its first argument is the name of a volume, a file, or one of these words. */
  readonly argument: "volume" | "file" | "none" | readonly string[];
}

/** Lists the volumes' names for a shell; quiet when the group cannot be reached. */
export const volumeNamesCommand = "plimsoll volume list 2>/dev/null | awk 'NR > 1 { print $1 }'";

export function registerCompletions(program: Command, terminal: Terminal): void {
  const command = program.command("completions")
    .description("print a completion script for a shell")
    .argument("<shell>", "bash, zsh or fish")
    .action((shell: string) => terminal.out(scripts[shell as keyof typeof scripts](tree(program))));
  command.registeredArguments[0]!.choices(Object.keys(scripts));
  withExamples(command, [
    "plimsoll completions bash > /etc/bash_completion.d/plimsoll",
    'plimsoll completions zsh > "${fpath[1]}/_plimsoll"',
    "plimsoll completions fish > ~/.config/fish/completions/plimsoll.fish",
  ]);
}

export function tree(program: Command): CompletedCommand {
  return describe(program, "", program.name());
}

/** The command and everything below it, parents first. */
export function flatten(command: CompletedCommand): CompletedCommand[] {
  return [command, ...command.children.flatMap(flatten)];
}

function describe(command: Command, path: string, name: string): CompletedCommand {
  const children = command.commands.map((child) => describe(child, `${path} ${child.name()}`, child.name()));
  const options = [...command.options.filter((o) => !o.hidden), new Option("-h, --help", "display help")].map(
    optionOf,
  );
  return {
    path,
    name,
    description: command.description(),
    options,
    children,
    argument: argumentOf(command, path),
  };
}

function optionOf(option: Option): CompletedOption {
  return {
    flags: [option.short, option.long].filter((flag) => flag !== undefined && flag !== null),
    description: option.description,
    takesValue: option.required || option.optional,
    choices: option.argChoices ?? [],
    takesFile: /<file>/.test(option.flags),
  };
}

function argumentOf(command: Command, path: string): CompletedCommand["argument"] {
  const first = command.registeredArguments[0];
  if (first === undefined) return "none";
  if (first.argChoices !== undefined) return first.argChoices;
  if (first.name() === "path" || first.name() === "file") return "file";
  return first.name() === "volume" || (first.name() === "name" && path !== " volume create")
    ? "volume"
    : "none";
}
