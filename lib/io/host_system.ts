// Programs and small files of this machine, for the host agent.

import type { HostSystem, ProgramEnd } from "../base/host_system.ts";
import { limits } from "../base/limits.ts";
import { makeDirectoryOf } from "./files.ts";

export const hostSystem: HostSystem = Object.freeze({
  get privileged(): boolean {
    return Deno.uid() === 0;
  },
  run,
  async readText(path: string) {
    try {
      return await Deno.readTextFile(path);
    } catch {
      return null; // /sys answers with all kinds of errors when a device goes away
    }
  },
  async list(path: string) {
    const names: string[] = [];
    try {
      for await (const { name } of Deno.readDir(path)) names.push(name);
    } catch {
      return [];
    }
    return names.sort();
  },
  async writeText(path: string, text: string) {
    await makeDirectoryOf(path);
    await Deno.writeTextFile(path, text, { mode: 0o600 });
  },
  async remove(path: string) {
    await Deno.remove(path).catch(() => {});
  },
});

async function run(program: string, args: readonly string[], timeMsMax: number): Promise<ProgramEnd> {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args: [...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      env: { LC_ALL: "C", PATH: `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin` },
    }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { kind: "missing" };
    return { kind: "killed", why: `it cannot be run: ${(error as Error).message}` };
  }
  let kill: (why: string) => void = () => {};
  // A program that hangs in the kernel is not gone when it has been killed, so nobody waits for it.
  const killed = new Promise<ProgramEnd>((resolve) => {
    kill = (why) => {
      try {
        child.kill("SIGKILL");
      } catch { /* it has ended meanwhile */ }
      resolve({ kind: "killed", why });
    };
  });
  const timer = setTimeout(() => kill(`it has not ended after ${timeMsMax} ms`), timeMsMax);
  const tooMuch = () => kill(`it printed more than ${limits.hostOutputBytesMax} bytes`);
  const ended = Promise.all([textOf(child.stdout, tooMuch), textOf(child.stderr, tooMuch), child.status])
    .then(([stdout, stderr, { code }]): ProgramEnd => ({ kind: "ended", code, stdout, stderr }));
  try {
    return await Promise.race([ended, killed]);
  } finally {
    clearTimeout(timer);
  }
}

async function textOf(stream: ReadableStream<Uint8Array>, tooMuch: () => void): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const part of stream) {
    bytes += part.length;
    if (bytes > limits.hostOutputBytesMax) {
      tooMuch();
      break;
    }
    text += decoder.decode(part, { stream: true });
  }
  return text;
}
