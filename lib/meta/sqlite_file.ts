// Making the file of the SQLite driver: private (it holds CHAP secrets) and durable in its directory.

/**
 * Makes an empty file of mode 0600 at `path` if nothing is there, and its name durable. The file is made under
 * another name and linked into place: to open and close it under its own would drop the POSIX locks that another
 * connection of this process holds on it. Several processes may do this at once.
 */
export function prepareFile(path: string): void {
  const directory = directoryOf(path);
  try {
    const { mode } = Deno.statSync(path);
    if (mode !== null && (mode & 0o077) !== 0) Deno.chmodSync(path, 0o600);
    return;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  Deno.mkdirSync(directory, { recursive: true });
  const temporary = `${path}.new-${crypto.randomUUID()}`;
  Deno.openSync(temporary, { write: true, createNew: true, mode: 0o600 }).close();
  try {
    Deno.linkSync(temporary, path);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  } finally {
    Deno.removeSync(temporary);
  }
  syncDirectory(directory);
}

/** Makes names made in `directory` durable. */
export function syncDirectory(directory: string): void {
  if (Deno.build.os === "windows") return; // directories cannot be opened there
  const handle = Deno.openSync(directory, { read: true });
  try {
    handle.syncSync();
  } finally {
    handle.close();
  }
}

function directoryOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "." : slash === 0 ? "/" : path.slice(0, slash);
}
