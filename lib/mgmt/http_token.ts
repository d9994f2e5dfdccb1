// The admin token: who can read state_dir/admin.token may change the group. Made at a member's first start, kept after.

import type { RandomSource } from "../base/random.ts";

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
    throw new Error(
      `Cannot read the admin token "${path}": ${(error as Error).message}. Run as the member's user.`,
    );
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
        `Delete it; the next start of the member makes a new one.`,
    );
  }
  return text;
}

async function makeToken(path: string, random: RandomSource): Promise<string> {
  const bytes = new Uint8Array(tokenBytes);
  random.fill(bytes);
  const token = bytes.toHex();
  random.fill(bytes);
  const draft = `${path}.${bytes.toHex().slice(0, 16)}.new`;
  try {
    const file = await Deno.open(draft, { write: true, createNew: true, mode: 0o600 });
    try {
      const text = new TextEncoder().encode(`${token}\n`);
      for (let at = 0; at < text.length;) at += await file.write(text.subarray(at));
      await file.sync();
    } finally {
      file.close();
    }
    await Deno.link(draft, path); // fails where another start was faster: its token is as good
    return token;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) {
      const other = await readToken(path);
      if (other !== null) return other;
    }
    throw new Error(
      `Cannot make the admin token "${path}": ${
        (error as Error).message
      }. Give the member a state_dir it can write.`,
    );
  } finally {
    await Deno.remove(draft).catch(() => {});
  }
}
