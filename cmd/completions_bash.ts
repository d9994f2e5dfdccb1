// The completion script of bash (3.2 and later).

import { type CompletedCommand, flatten, volumeNamesCommand } from "./completions.ts";

export function bashScript(program: CompletedCommand): string {
  const commands = flatten(program);
  const known = commands.slice(1).map((c) => `"${c.path}"`).join(" | ");
  const values = commands.flatMap((c) =>
    c.options.filter((o) => o.takesValue).map((o) => {
      const patterns = o.flags.map((flag) => `"${c.path} ${flag}"`).join(" | ");
      const action = o.choices.length > 0
        ? `_plimsoll_words "${o.choices.join(" ")}"`
        : o.takesFile
        ? "_plimsoll_files"
        : ":";
      return `    ${patterns}) ${action}; return ;;`;
    })
  );
  const words = commands.map((c) => {
    const list = [...c.children.map((child) => child.name), ...c.options.map((o) => o.flags.at(-1)!)];
    if (typeof c.argument !== "string") list.unshift(...c.argument);
    const names = c.argument === "volume" ? ` $(${volumeNamesCommand})` : "";
    const files = c.argument === "file" ? ` [[ $cur == -* ]] || _plimsoll_files;` : "";
    return `    "${c.path}") _plimsoll_words "${list.join(" ")}${names}";${files} ;;`;
  });
  return `# Completion of plimsoll for bash. Made by: plimsoll completions bash
_plimsoll_words() {
  local word
  for word in $1; do [[ $word == "$cur"* ]] && COMPREPLY+=("$word"); done
}
_plimsoll_files() {
  local file
  compopt -o filenames 2>/dev/null
  while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$cur")
}
_plimsoll() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" path="" i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$path \${COMP_WORDS[i]}" in
    ${known}) path="$path \${COMP_WORDS[i]}" ;;
    esac
  done
  case "$path $prev" in
${values.join("\n")}
  esac
  case "$path" in
${words.join("\n")}
  esac
}
complete -F _plimsoll plimsoll
`;
}
