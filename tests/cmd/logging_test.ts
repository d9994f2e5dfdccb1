// Without this, a peer's name could forge log lines, and machines could not read the log.

import { strict as assert } from "node:assert";
import { setUpLogging } from "../../cmd/logging.ts";

Deno.test("text lines carry time, level, message and fields, and a peer cannot forge a line", async () => {
  const lines: string[] = [];
  const log = await setUpLogging({ level: "info", format: "text", write: (line) => lines.push(line) });
  log.debug("not seen");
  log.info("logged in", { initiator: "iqn.2026-01.example:a", count: 3 });
  log.warn("odd {name} in a message", { name: "a\n2026 ERROR forged", error: new Error("why not") });
  log.error("bytes", {
    bytes: new Uint8Array([1, 255]),
    big: 5n,
    remote: { hostname: "::1", port: 3260 },
    none: null,
  });
  assert.equal(lines.length, 3);
  const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /;
  for (const line of lines) {
    assert.match(line, time);
    assert.equal(line.indexOf("\n"), line.length - 1, "one record, one line");
  }
  const rest = lines.map((line) => line.replace(time, "").trimEnd());
  assert.deepEqual(rest, [
    "INFO  logged in initiator=iqn.2026-01.example:a count=3",
    'WARN  odd {name} in a message name="a\\n2026 ERROR forged" error="why not"',
    "ERROR bytes bytes=01ff big=5 remote=[::1]:3260 none=null",
  ]);
});

Deno.test("JSON lines parse, and fields cannot take the place of time, level or message", async () => {
  const lines: string[] = [];
  const log = await setUpLogging({ level: "debug", format: "json", write: (line) => lines.push(line) });
  log.debug("started", { level: "error", message: "forged", port: 3260, text: "a\u2028\x1b" });
  const record = JSON.parse(lines[0]!);
  assert.match(record.time, /Z$/);
  delete record.time;
  assert.deepEqual(record, { level: "debug", message: "started", port: 3260, text: "a\u2028\x1b" });
});
