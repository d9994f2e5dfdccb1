// The completion script of fish.

import { type CompletedCommand, type CompletedOption, flatten, volumeNamesCommand } from "./completions.ts";

export function fishScript(program: CompletedCommand): string {
  const commands = flatten(program);
  const known = commands.slice(1).map((c) => quote(c.path)).join(" ");
  const lines = commands.flatMap((c) => {
    const at = `complete -c plimsoll -n ${quote(`__plimsoll_at ${quote(c.path)}`)}`;
    const out = c.children.map((child) => `${at} -a ${quote(child.name)} -d ${quote(child.description)}`);
    if (typeof c.argument !== "string") out.push(`${at} -a ${quote(c.argument.join(" "))}`);
    if (c.argument === "volume") out.push(`${at} -a ${quote(`(${volumeNamesCommand})`)}`);
    if (c.argument === "file") out.push(`${at} -F`);
    out.push(...c.options.map((o) => `${at} ${option(o)}`));
    return out;
  });
  return `# Completion of plimsoll for fish. Made by: plimsoll completions fish
function __plimsoll_at
  set -l at ''
  for word in (commandline -opc)[2..]
    contains -- "$at $word" ${known}; and set at "$at $word"
  end
  test "$at" = "$argv[1]"
end
complete -c plimsoll -f
${lines.join("\n")}
`;
}

function option(o: CompletedOption): string {
  const flags = o.flags.map((flag) => flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`);
  const value = !o.takesValue
    ? ""
    : o.takesFile
    ? " -r -F"
    : o.choices.length > 0
    ? ` -x -a ${quote(o.choices.join(" "))}`
    : " -x";
  return `${flags.join(" ")}${value} -d ${quote(o.description)}`;
}

function quote(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
