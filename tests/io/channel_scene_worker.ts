// The thread at the other end in channel_test.ts: a native loop that serves a few methods.

import { type ChannelMemory, LoopChannel } from "../../lib/io/native/channel.ts";
import { NativeLoop } from "../../lib/io/native/loop.ts";

// deno-lint-ignore no-explicit-any
export type Any = any;

const scope = self as unknown as { onmessage: (event: MessageEvent<Any>) => void; close(): void };

scope.onmessage = async (event) => {
  const { memory, heartbeat } = event.data as {
    memory: ChannelMemory;
    heartbeat: Int32Array<SharedArrayBuffer>;
  };
  const loop = new NativeLoop({ heartbeat: { cells: heartbeat, index: 0 } });
  const channel: LoopChannel<Any, Any> = new LoopChannel<Any, Any>(loop, memory, {
    echo: (args: unknown) => args,
    sum: (bytes: Uint8Array) => bytes.reduce((a, b) => a + b, 0),
    fail: () => {
      throw Object.assign(new RangeError("out of room"), { errno: 28 });
    },
    later: (ms: number) => new Promise((resolve) => loop.after(ms, () => resolve("late"))),
    chain: async (depth: number) => {
      let n = 0;
      const one = async (): Promise<void> => {
        n++;
        await null;
        if (n < depth) await one();
      };
      await one();
      return n;
    },
    outside: () => new Promise((resolve) => setTimeout(() => resolve("macrotask"), 5)),
    ask: async (question: string) => `main says ${await channel.call("answer", question)}`,
    sleepInTheKernel: (ms: number) => {
      const until = loop.nowMs() + ms;
      while (loop.nowMs() < until);
    },
    huge: () => "x".repeat(2 << 20),
    stop: () => {
      loop.after(20, () => {
        channel.close();
        loop.stop();
      });
    },
  });
  await loop.run();
  loop.close();
  scope.close();
};
