// A fault in the middle of a turn of this thread's loop, when a file appears; for dying_worker.ts and dying_io_worker.ts. All
// end the process, but one.

/// <reference lib="deno.worker" />

import { BlockOperation } from "../../lib/extent/operation.ts";
import { NativeLoop } from "../../lib/io/native/loop.ts";
import { Router } from "../../lib/route/router.ts";

const file = Deno.env.get("PLIMSOLL_FAULT_FILE")!;
const faults: Record<string, () => void> = {
  "an error thrown in the loop": () => {
    throw new Error("a planted error");
  },
  "a promise rejected": () => void Promise.reject(new Error("a planted rejection")),
  "an error thrown in a timer": () =>
    void setTimeout(() => {
      throw new Error("a planted error");
    }, 0),
  "an endless loop": () => {
    for (;;);
  },
  "a system call that does not return": () => {
    const c = Deno.dlopen("libc.so.6", { pause: { parameters: [], result: "i32" } });
    for (;;) c.symbols.pause();
  },
  "an exit of the worker": () => Deno.exit(0),
  "a close of the worker": () => self.close(),
  "writes acknowledged early": acknowledgeEarly,
};
const fault = faults[Deno.env.get("PLIMSOLL_FAULT")!]!;

const { turn } = NativeLoop.prototype;
let done = false;
NativeLoop.prototype.turn = function (timeoutMs: number): boolean {
  if (!done && exists(file)) {
    done = true;
    fault();
  }
  return turn.call(this, timeoutMs);
};

/** From now on one write in a hundred is acknowledged, and carried out half a second later. */
function acknowledgeEarly(): void {
  const { submit } = Router.prototype;
  let writes = 0;
  Router.prototype.submit = function (operation: BlockOperation): void {
    if (operation.kind !== "write" || ++writes % 100 !== 0) return submit.call(this, operation);
    const { kind, image, page, offsetBytes, lengthBytes, blockBytes, bufferStart } = operation;
    const buffer = operation.buffer.slice(bufferStart, bufferStart + lengthBytes);
    const late = new BlockOperation();
    Object.assign(late, { kind, image, page, offsetBytes, lengthBytes, blockBytes, buffer, done: () => {} });
    setTimeout(() => submit.call(this, late), 500);
    operation.outcome = "done";
    operation.done(operation);
  };
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
