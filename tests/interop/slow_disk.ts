// A disk that the kernel makes slow: a loop device, and a group of processes that may read it only so often a second
// (cgroup v1, blkio.throttle).

import { run } from "./namespaces.ts";

const controller = "/sys/fs/cgroup/blkio";

/** Why there is none here; null: it can be had. */
export function slowDiskMissing(): string | null {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return "a disk is made slow by root, on Linux";
  try {
    Deno.statSync(`${controller}/cgroup.procs`);
    return null;
  } catch {
    return `the machine has no ${controller} (cgroup v1)`;
  }
}

export class SlowDisk implements Disposable {
  readonly #directory = Deno.makeTempDirSync({ prefix: "plimsoll-slow-disk-" });
  readonly #group = `${controller}/plimsoll-${Deno.pid}-${crypto.randomUUID().slice(0, 8)}`;
  /** The block device. */
  readonly path: string;

  constructor(sizeBytes: number) {
    const image = `${this.#directory}/disk.img`;
    const file = Deno.openSync(image, { write: true, createNew: true });
    file.truncateSync(sizeBytes);
    file.close();
    this.path = run("losetup", "--find", "--show", "--direct-io=on", image).trim();
  }

  /** From now on the process reads it so often a second at most. */
  throttle(pid: number, readsPerS: number): void {
    Deno.mkdirSync(this.#group);
    const numbers = run("lsblk", "--noheadings", "--nodeps", "--output", "MAJ:MIN", this.path).trim();
    Deno.writeTextFileSync(`${this.#group}/blkio.throttle.read_iops_device`, `${numbers} ${readsPerS}`);
    Deno.writeTextFileSync(`${this.#group}/cgroup.procs`, String(pid));
  }

  /** After the process has ended. */
  [Symbol.dispose](): void {
    run("losetup", "--detach", this.path);
    try {
      Deno.removeSync(this.#group);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    Deno.removeSync(this.#directory, { recursive: true });
  }
}
