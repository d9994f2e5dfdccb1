// Without this, a drain that was asked for at the wrong moment would begin, or end, half a minute late.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { silentLog } from "../../lib/base/log.ts";
import { PageDecider, type PageDeciderParts } from "../../lib/roles/target/page_decider.ts";
import { StandingClock } from "../meta/standing_clock.ts";

Deno.test("what changes during a look is looked at right after it", async () => {
  // Lost without it: the news, since the look that is under way has asked before and the next one is far off.
  const clock = new StandingClock();
  const asked: PromiseWithResolvers<never>[] = [];
  const parts = {
    clock,
    log: silentLog,
    mover: { idle: true },
    volumes: { served: () => [{}] },
    usage: {
      capacity: () => {
        asked.push(Promise.withResolvers<never>());
        return asked.at(-1)!.promise;
      },
    },
  } as unknown as PageDeciderParts;
  const decider = new PageDecider(parts);
  const answer = async () => {
    asked.at(-1)!.reject(new Error("the metadata is away"));
    for (let i = 0; i < 20; i++) await Promise.resolve();
  };
  decider.start();
  clock.advance(limits.moveLookMs);
  decider.soon();
  await answer();
  clock.advance(0);
  assert.equal(asked.length, 2, "at once");
  await answer();
  clock.advance(0);
  assert.equal(asked.length, 2, "and once");
  decider.close();
});
