// Secrets that a command takes from files. No message has one.

import { chapSecretExpected, chapSecretProblem, secretOfFile } from "../lib/config/mod.ts";
import { CommandError } from "./terminal.ts";

/** The secret in the file, of any length. Throws CommandError when the file cannot be read. */
export async function readSecret(path: string): Promise<string> {
  try {
    return secretOfFile(await Deno.readTextFile(path));
  } catch (error) {
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new CommandError(`Cannot read the CHAP secret "${path}": ${reason}. Make the file with mode 600.`);
  }
}

/** One that a volume can have. Throws CommandError when it is too short or too long as well. */
export async function readChapSecret(path: string): Promise<string> {
  const secret = await readSecret(path);
  const problem = chapSecretProblem(secret);
  if (problem === null) return secret;
  throw new CommandError(
    `Cannot use the CHAP secret of "${path}": ${problem}. Give it ${chapSecretExpected}.`,
  );
}
