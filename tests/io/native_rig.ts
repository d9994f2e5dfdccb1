// A native loop inside a test: its turns alternate with those of the test's own event loop, which it would block otherwise.

import { NativeLoop, type NativeLoopOptions } from "../../lib/io/native/loop.ts";

export interface LoopRig {
  readonly loop: NativeLoop;
  /** Ends the turning and closes the loop. */
  stop(): Promise<void>;
}

/** Rejections of the turning itself (an assertion in a handler) surface in stop(). */
export function turnLoop(options: NativeLoopOptions = {}): LoopRig {
  const loop = new NativeLoop(options);
  let stopping = false;
  const turning = (async () => {
    while (!stopping) {
      loop.turn(1);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  })();
  turning.catch((error) => console.error(error)); // a test that hangs says why; stop() tells as well
  return {
    loop,
    async stop() {
      stopping = true;
      await turning;
      loop.close();
    },
  };
}
