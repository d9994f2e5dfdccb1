// Programs that interoperability tests need. On a bare machine such a test is skipped and says so; in CI it fails.

import { root } from "./target_process.ts";

export const inCi = Deno.env.get("PLIMSOLL_CI") === "1";

/** The founders' yardsticks lie beside the repository. */
export const shared = Deno.env.get("PLIMSOLL_SHARED") ?? `${root}../shared`;

export function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function installed(program: string): boolean {
  if (program.includes("/")) return exists(program);
  const path = `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin`;
  return path.split(":").some((directory) => directory !== "" && exists(`${directory}/${program}`));
}

/** A test that needs programs (names, or paths of files). */
export function interop(
  name: string,
  needs: readonly string[],
  body: (t: Deno.TestContext) => Promise<void>,
): void {
  const missing = needs.filter((n) => !installed(n));
  if (missing.length === 0) Deno.test(name, body);
  else if (!inCi) {
    Deno.test({ name: `${name} (skipped, not installed: ${missing.join(", ")})`, ignore: true, fn() {} });
  } else {
    Deno.test(name, () => {
      throw new Error(`Not installed: ${missing.join(", ")}. In CI nothing is skipped.`);
    });
  }
}

export interface Finished {
  readonly code: number;
  readonly output: string;
}

/** Runs a program to its end, killed after `secondsMax`; its output and errors in one text. */
export async function finish(
  program: string,
  args: readonly string[],
  options: { secondsMax: number; env?: Record<string, string>; cwd?: string },
): Promise<Finished> {
  const child = new Deno.Command(program, {
    args: [...args],
    env: options.env ?? {},
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGTERM");
  }, options.secondsMax * 1000);
  const killer = setTimeout(() => child.kill("SIGKILL"), options.secondsMax * 1000 + 5000);
  const result = await child.output();
  clearTimeout(timer);
  clearTimeout(killer);
  const decoder = new TextDecoder();
  const output = decoder.decode(result.stdout) + decoder.decode(result.stderr) +
    (late ? `\n(ended after ${options.secondsMax} s)` : "");
  return { code: late ? 124 : result.code, output };
}

/** Like finish, and throws with what it printed unless the program ended with 0. */
export async function succeed(
  program: string,
  args: readonly string[],
  options: { secondsMax: number; env?: Record<string, string>; cwd?: string },
): Promise<string> {
  const { code, output } = await finish(program, args, options);
  if (code !== 0) throw new Error(`"${program} ${args.join(" ")}" ended with status ${code}:\n${output}`);
  return output;
}
