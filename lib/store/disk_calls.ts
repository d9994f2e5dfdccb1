// A disk for those who may wait: formatting, opening, checking. The data path submits operations itself.

import type { Disk, DiskOperationKind } from "../base/disk.ts";

/** A disk operation failed; `errno` is the system's number. */
export class DiskError extends Error {
  override name = "DiskError";
  constructor(readonly errno: number, message: string) {
    super(message);
  }
}

const readTries = 4;

export class DiskCalls {
  constructor(readonly disk: Disk) {}

  async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const buffer = new Uint8Array(lengthBytes);
    await this.#call("read", offsetBytes, lengthBytes, buffer);
    return buffer;
  }

  /** For what counts as lost when it cannot be read: several tries. */
  async readHard(offsetBytes: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    for (let tried = 1;; tried++) {
      try {
        return await this.read(offsetBytes, lengthBytes);
      } catch (error) {
        if (tried === readTries) throw error;
      }
    }
  }

  write(offsetBytes: number, bytes: Uint8Array): Promise<void> {
    return this.#call("write", offsetBytes, bytes.length, bytes);
  }

  punch(offsetBytes: number, lengthBytes: number): Promise<void> {
    return this.#call("punch", offsetBytes, lengthBytes, nothing);
  }

  flush(): Promise<void> {
    return this.#call("flush", 0, 0, nothing);
  }

  #call(
    kind: DiskOperationKind,
    offsetBytes: number,
    lengthBytes: number,
    buffer: Uint8Array,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      this.disk.submit({
        kind,
        offsetBytes,
        lengthBytes,
        buffer,
        bufferStart: 0,
        errno: 0,
        done: (operation) => {
          if (operation.errno === 0) return resolve();
          const what = kind === "flush" ? "flush" : `${kind} ${lengthBytes} bytes at ${offsetBytes} of`;
          reject(
            new DiskError(
              operation.errno,
              `Cannot ${what} disk "${this.disk.name}": error ${operation.errno}.`,
            ),
          );
        },
      });
    });
  }
}

const nothing = new Uint8Array(0);
