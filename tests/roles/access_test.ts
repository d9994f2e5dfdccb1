// Without this, a volume may be shown to, or opened by, somebody whom the operator did not name.

import { strict as assert } from "node:assert";
import { mayUse } from "../../lib/roles/target/access.ts";

const loopback = { hostname: "127.0.0.1", port: 3260 };
const outside = { hostname: "10.0.0.1", port: 3260 };

Deno.test("without chap or initiators a volume is served on loopback portals only", () => {
  const chap = { user: "u", secret: "s" };
  assert.ok(mayUse({ initiators: null, chap: null }, "iqn.a", loopback));
  assert.ok(!mayUse({ initiators: null, chap: null }, "iqn.a", outside));
  assert.ok(mayUse({ initiators: ["*"], chap: null }, "iqn.a", outside));
  assert.ok(mayUse({ initiators: null, chap }, "iqn.a", outside));
  assert.ok(!mayUse({ initiators: ["iqn.b"], chap }, "iqn.a", loopback), "a name list holds with CHAP too");
  assert.ok(!mayUse({ initiators: [], chap: null }, "iqn.a", loopback));
});
