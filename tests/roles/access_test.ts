// Without this, a volume may be shown to, or opened by, somebody whom the operator did not name.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { mayUse, nameMatches } from "../../lib/roles/target/access.ts";

const loopback = { hostname: "127.0.0.1", port: 3260 };
const outside = { hostname: "10.0.0.1", port: 3260 };

Deno.test("patterns match whole names, without case", () => {
  assert.ok(nameMatches("iqn.2026-01.*", "iqn.2026-01.net.host:a"));
  assert.ok(nameMatches("IQN.2026-01.NET:A", "iqn.2026-01.net:a"));
  assert.ok(nameMatches("*", "eui.0011223344556677"));
  assert.ok(nameMatches("iqn.*:web-*", "iqn.2026-01.net:web-7"));
  assert.ok(!nameMatches("iqn.2026-01.net:a", "iqn.2026-01.net:ab"));
  assert.ok(!nameMatches("iqn.2026-01.net:a", "xiqn.2026-01.net:a"));
  assert.ok(!nameMatches("ab*ba", "aba"), "the ends of a pattern may not overlap");
  assert.ok(!nameMatches("a.c", "abc"), "a dot is a dot");
  assert.ok(!nameMatches("", "iqn.x"));
});

Deno.test("patterns agree with the same pattern as a regular expression", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", ".", "*"), maxLength: 8 });
  fc.assert(fc.property(text, text.map((s) => s.replaceAll("*", "")), (pattern, name) => {
    const expression = new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", ".*")}$`);
    return nameMatches(pattern, name) === expression.test(name);
  }));
});

Deno.test("without chap or initiators a volume is served on loopback portals only", () => {
  const chap = { user: "u", secret: "s" };
  assert.ok(mayUse({ initiators: null, chap: null }, "iqn.a", loopback));
  assert.ok(!mayUse({ initiators: null, chap: null }, "iqn.a", outside));
  assert.ok(mayUse({ initiators: ["*"], chap: null }, "iqn.a", outside));
  assert.ok(mayUse({ initiators: null, chap }, "iqn.a", outside));
  assert.ok(!mayUse({ initiators: ["iqn.b"], chap }, "iqn.a", loopback), "a name list holds with CHAP too");
  assert.ok(!mayUse({ initiators: [], chap: null }, "iqn.a", loopback));
});
