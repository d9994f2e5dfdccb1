// Secrets that a command takes from files. No message has one.

import { chapSecretOfFile } from "../lib/config/mod.ts";
import { CommandError } from "./terminal.ts";

/** The text of a file with a secret. Throws CommandError when it cannot be read. */
export async function readSecretFile(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new CommandError(`Cannot read the CHAP secret "${path}": ${reason}. Make the file with mode 600.`);
  }
}

/** The CHAP secret in a file. Throws CommandError when the file cannot be read, or what it holds is too short or too long. */
export async function readChapSecret(path: string): Promise<string> {
  const text = await readSecretFile(path);
  try {
    return chapSecretOfFile(path, text);
  } catch (error) {
    throw new CommandError((error as Error).message);
  }
}
