// One process at a time in a state directory: a file in it that the process holds locked (flock) as long as it lives,
// however it ends. Who gets the lock knows that the one before is dead.

import * as fs from "node:fs";
import { makeDirectoryOf } from "./files.ts";
import { lockFile } from "./libc.ts";

export interface StateLock {
  /** Names the locked file among all of this boot of the machine; null: this system has no locks. */
  readonly name: string | null;
  release(): void;
}

/** Locks `directory`/lock, which is made if need be. Rejects when another process holds it. */
export async function lockStateDirectory(directory: string): Promise<StateLock> {
  const path = `${directory}/lock`;
  await makeDirectoryOf(path);
  const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
  const lock = lockFile(fd);
  if (lock === "held") {
    const pid = fs.readFileSync(path, "utf8").trim();
    fs.closeSync(fd);
    throw new Error(
      `Cannot use state_dir "${directory}": ${
        pid === "" ? "another process" : `process ${pid}`
      } is at work there. ` +
        "Stop it (SIGCONT first, if it is paused), or give this member a state_dir of its own.",
    );
  }
  fs.ftruncateSync(fd);
  fs.writeSync(fd, `${Deno.pid}\n`, 0);
  const { dev, ino } = fs.fstatSync(fd);
  return { name: lock === "locked" ? `${dev}:${ino}` : null, release: () => fs.closeSync(fd) };
}
