// The completion script of zsh.

import { type CompletedCommand, flatten, volumeNamesCommand } from "./completions.ts";

export function zshScript(program: CompletedCommand): string {
  const commands = flatten(program);
  const known = commands.slice(1).map((c) => quote(c.path)).join(" | ");
  const values = commands.flatMap((c) =>
    c.options.filter((o) => o.takesValue).map((o) => {
      const patterns = o.flags.map((flag) => quote(`${c.path} ${flag}`)).join(" | ");
      const action = o.choices.length > 0
        ? `compadd -- ${o.choices.map(quote).join(" ")}`
        : o.takesFile
        ? "_files"
        : ":";
      return `    ${patterns}) ${action}; return ;;`;
    })
  );
  const words = commands.map((c) => {
    const children = c.children.map((child) => item(child.name, child.description));
    const options = c.options.map((o) => item(o.flags.at(-1)!, o.description));
    const parts: string[] = [];
    if (children.length > 0) parts.push(`list=(${children.join(" ")}); _describe command list`);
    if (typeof c.argument !== "string") parts.push(`compadd -- ${c.argument.map(quote).join(" ")}`);
    if (c.argument === "volume") parts.push(`compadd -- \${(f)"$(${volumeNamesCommand})"}`);
    if (c.argument === "file") parts.push("_files");
    parts.push(`list=(${options.join(" ")}); _describe -o option list`);
    return `    ${quote(c.path)})\n      ${parts.join("\n      ")} ;;`;
  });
  return `#compdef plimsoll
# Completion of plimsoll for zsh. Made by: plimsoll completions zsh
_plimsoll() {
  local at="" i
  local -a list
  for ((i = 2; i < CURRENT; i++)); do
    case "$at \${words[i]}" in
    ${known}) at="$at \${words[i]}" ;;
    esac
  done
  case "$at \${words[CURRENT-1]}" in
${values.join("\n")}
  esac
  case "$at" in
${words.join("\n")}
  esac
}
if [[ "$funcstack[1]" = _plimsoll ]]; then _plimsoll "$@"; else compdef _plimsoll plimsoll; fi
`;
}

/** "name:description" for _describe, which takes a colon as the end of the name. */
function item(name: string, description: string): string {
  return quote(`${name.replaceAll(":", "\\:")}:${description}`);
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
