// Without this, docs/configuration.md would miss keys that are new, tell of those that are gone, or show what does not parse.

import { strict as assert } from "node:assert";
import { parseConfig } from "../../lib/config/mod.ts";

const page = await Deno.readTextFile(new URL("../../docs/configuration.md", import.meta.url));
/** "## [group]" and "## [[disk]]", each with its text. */
const sections = [...page.matchAll(/^## (\[+)(\w+)\]+\n([^]*?)(?=^## |$(?![^]))/gm)]
  .map(([, brackets, name, text]) => ({
    heading: `${brackets}${name}${"]".repeat(brackets!.length)}`,
    text: text!,
  }));

/** First cells of the tables that tell of keys: "| `chap`, `mutual` |". */
function keysTold(text: string): string[] {
  const table = /^\| key \|[^]*?(?=\n\n|$(?![^]))/m.exec(text)?.[0] ?? "";
  return table.split("\n").slice(2).flatMap((row) =>
    [...row.split("|")[1]!.matchAll(/`(\w+)`/g)].map(([, key]) => key!)
  );
}

/** What the parser says of a key that nobody has. */
function keysKnown(heading: string): string[] {
  const parsed = parseConfig(`${heading}\nzzzzzzzz = 1\n`, "a.toml");
  assert.ok(!parsed.ok);
  const { message } = parsed.problems.find((problem) => problem.message.startsWith("Unknown key"))!;
  return /Expected one of (.*)\.$/.exec(message)![1]!.split(", ");
}

Deno.test("every section of the page tells of the keys that the parser knows, and of no others", () => {
  assert.deepEqual(
    sections.map(({ heading }) => heading),
    ["[group]", "[member]", "[balance]", "[[disk]]", "[[volume]]", "[proxy]", "[agent]"],
  );
  for (const { heading, text } of sections) {
    const known = heading === "[balance]" ? keysKnown("[member]\n[balance]") : keysKnown(heading);
    assert.deepEqual(keysTold(text).toSorted(), known.toSorted(), heading);
  }
});

Deno.test("the page's examples are in order: a member's together, a proxy's and a host agent's each for itself", () => {
  const examples = sections.map(({ text }) =>
    [...text.matchAll(/^```toml\n([^]*?)^```/gm)].map(([, toml]) => toml!)
  );
  const [proxy, agent] = examples.slice(-2).map((one) => one.join("\n"));
  for (const toml of [examples.slice(0, -2).flat().join("\n"), proxy!, agent!]) {
    const parsed = parseConfig(toml, "a.toml");
    assert.ok(parsed.ok, JSON.stringify(parsed, null, 1));
  }
});
