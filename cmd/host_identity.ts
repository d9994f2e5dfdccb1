// Who a host that is no member is to a group: what an initiator-proxy and a host agent prove themselves with.

import { makePrivateFile, readTextIfThere } from "../lib/io/files.ts";
import { systemRandom } from "../lib/io/system_random.ts";

/** The group's, a copy of a member's. */
export async function groupSecret(path: string): Promise<string> {
  const text = await readTextIfThere(path);
  if (text !== null && text.trim() !== "") return text.trim();
  throw new Error(
    `Cannot read the group's secret from "${path}": there is no such file. Copy it from a member.`,
  );
}

/** Who this host is to the group: 16 bytes, random, made at the first start. */
export async function hostNumber(path: string): Promise<Uint8Array> {
  const fresh = new Uint8Array(16);
  systemRandom.fill(fresh);
  await makePrivateFile(path, `${fresh.toHex()}\n`);
  const text = (await readTextIfThere(path))?.trim() ?? "";
  if (/^[0-9a-f]{32}$/.test(text)) return Uint8Array.fromHex(text);
  throw new Error(
    `Cannot use "${path}": it has no 32 hexadecimal digits. Delete it: another number is made then.`,
  );
}
