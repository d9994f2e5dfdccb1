// Without this, docs/configuration.md would show examples that the program refuses.

import { strict as assert } from "node:assert";
import { formatProblem, parseConfig } from "../../lib/config/mod.ts";

Deno.test("the examples of docs/configuration.md are right when put together", async () => {
  const text = await Deno.readTextFile(new URL("../../docs/configuration.md", import.meta.url));
  const examples = [...text.matchAll(/```toml\n([\s\S]*?)```/g)].map((match) => match[1]!);
  assert.ok(examples.length >= 5);
  const [proxy, agent] = examples.splice(-2) as [string, string];
  for (const whole of [examples.join("\n"), proxy, agent]) {
    const result = parseConfig(whole, "appliance.toml");
    assert.ok(result.ok, result.ok ? "" : result.problems.map(formatProblem).join("\n"));
  }
});

Deno.test("docs/configuration.md names every key that the parser knows", async () => {
  const text = await Deno.readTextFile(new URL("../../docs/configuration.md", import.meta.url));
  const texts = [
    "[group]\nx=1\n[member]\nx=1\n[proxy]\nx=1\n[[disk]]\nx=1\n[[volume]]\nx=1\n",
    "[balance]\nx=1\n",
    "[agent]\nx=1\n",
  ];
  const unknown = texts.flatMap((tables) => {
    const result = parseConfig(tables, "a");
    assert.ok(!result.ok);
    return result.problems.filter((problem) => problem.message.includes('Unknown key "x"'));
  });
  assert.equal(unknown.length, 7);
  for (const { expected } of unknown) {
    for (const key of expected.replace("one of ", "").split(", ")) {
      assert.ok(text.includes(`\`${key}\``), key);
    }
  }
});
