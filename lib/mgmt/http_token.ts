// The admin token: who can read state_dir/admin.token may change the group. Made at a member's first start, kept after.

import type { RandomSource } from "../base/random.ts";
import { makePrivateFile } from "../io/files.ts";

const tokenBytes = 32;
const tokenPattern = /^[0-9a-f]{64}$/;

/**
 * Reads the token, or makes one (0600) where there is none. A made token appears whole or not at all.
 * Throws when the file is no token, or when others than its owner could read it.
 */
export async function loadOrMakeToken(path: string, random: RandomSource): Promise<string> {
  return await readToken(path) ?? await makeToken(path, random);
}

/** The token in the file, or null when there is no such file. */
export async function readToken(path: string): Promise<string | null> {
  let text: string;
  let mode: number | null;
  try {
    mode = (await Deno.stat(path)).mode;
    text = (await Deno.readTextFile(path)).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    const advice = error instanceof Deno.errors.PermissionDenied
      ? "Run as the member's user."
      : "Check state_dir, or the name of the file.";
    throw new Error(`Cannot read the admin token "${path}": ${(error as Error).message}. ${advice}`);
  }
  if (mode !== null && (mode & 0o077) !== 0) {
    throw new Error(
      `Cannot use the admin token "${path}": its mode ${
        (mode & 0o777).toString(8)
      } lets other users at it. ` +
        `Delete it and start the member again for a new one (or run: chmod 600 "${path}").`,
    );
  }
  if (!tokenPattern.test(text)) {
    throw new Error(
      `Cannot use the admin token "${path}": it does not hold 64 hexadecimal digits. ` +
        `Copy it from the member's state_dir again; if it is bad there, delete it, and the next start makes a new one.`,
    );
  }
  return text;
}

async function makeToken(path: string, random: RandomSource): Promise<string> {
  const bytes = new Uint8Array(tokenBytes);
  random.fill(bytes);
  const token = bytes.toHex();
  try {
    if (await makePrivateFile(path, `${token}\n`)) return token;
  } catch (error) {
    throw new Error(
      `Cannot make the admin token "${path}": ${
        (error as Error).message
      }. Give the member a state_dir it can write.`,
    );
  }
  const other = await readToken(path); // another start was faster: its token is as good
  if (other === null) {
    throw new Error(`Cannot read the admin token "${path}": it was removed again. Start again.`);
  }
  return other;
}
