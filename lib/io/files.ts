// The few files a member keeps beside its disks: secrets, tokens, marks. Small, private, made durable.

import { syncDirectoryOf } from "./file_disk.ts";

/** The text of a file, or null when there is none. Rejects, with its name, when it cannot be read. */
export async function readTextIfThere(path: string): Promise<string | null> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new Error(
      `Cannot read "${path}": ${(error as Error).message}. Name a file that this user may read.`,
    );
  }
}

/**
 * Makes a file that only its owner may read, with `text`, durable before it resolves.
 * False: the file existed already and was left alone.
 */
export async function makePrivateFile(path: string, text: string): Promise<boolean> {
  await makeDirectoryOf(path);
  // Written whole under another name and then linked: whoever sees the name sees all of the text.
  const temporary = `${path}.${crypto.randomUUID()}.new`;
  using file = await Deno.open(temporary, { write: true, createNew: true, mode: 0o600 });
  try {
    await file.write(new TextEncoder().encode(text));
    await file.sync();
    await Deno.link(temporary, path);
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw error;
  } finally {
    await Deno.remove(temporary).catch(() => {});
  }
  syncDirectoryOf(path);
  return true;
}

/** Makes the directory that `path` lies in, private to its owner, with its parents. */
export async function makeDirectoryOf(path: string): Promise<void> {
  const directory = path.slice(0, path.lastIndexOf("/"));
  if (directory !== "") await Deno.mkdir(directory, { recursive: true, mode: 0o700 });
}

/** The identifier of this boot of the machine; null where the system has none (then every crash counts as a power loss). */
export async function bootId(): Promise<string | null> {
  return (await readTextIfThere("/proc/sys/kernel/random/boot_id").catch(() => null))?.trim() ?? null;
}
