// Paths in a configuration file are relative to that file (DESIGN.md, "Fixed interfaces").

/** The path as seen from where `fileName` is seen: absolute where either is absolute, without "." and inner "..". */
export function resolvePath(fileName: string, path: string): string {
  if (path.startsWith("/")) return normalize(path);
  return normalize(`${fileName.slice(0, fileName.lastIndexOf("/") + 1)}${path}`);
}

function normalize(path: string): string {
  const out: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === ".." && out.length > 0 && out[out.length - 1] !== "..") out.pop();
    else if (part !== ".." || !path.startsWith("/")) out.push(part);
  }
  return `${path.startsWith("/") ? "/" : ""}${out.join("/")}` || ".";
}

/** What is wrong with a path, as the end of a sentence, or null. */
export function pathProblem(path: string): string | null {
  if (path.trim() === "") return "it is empty";
  if (path.includes("\0")) return "it contains a NUL";
  if (path.startsWith("~")) return '"~" is not expanded here';
  return null;
}
