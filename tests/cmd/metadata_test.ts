// Without this, a certificate at the wrong path would be an error of the TLS library's.

import { strict as assert } from "node:assert";
import { openMetadata } from "../../cmd/metadata.ts";
import { silentLog } from "../../lib/base/log.ts";
import { parseConfig } from "../../lib/config/mod.ts";
import { Scene } from "./scene.ts";

Deno.test("what metadata_tls names must be there, and be what it is said to be", async () => {
  await using scene = new Scene();
  const open = async (tls: string) => {
    const text =
      `[group]\nname = "demo"\nmetadata = "etcd:https://127.0.0.1:1"\nmetadata_tls = { ${tls} }\n` +
      `secret_file = "s"\niqn_prefix = "iqn.2026-11.net.plimsoll.demo"\n[member]\nname = "a"\nportals = ["127.0.0.1:3"]\n` +
      `admin = "127.0.0.1:4"\nstate_dir = "a"\n[[disk]]\npath = "a.img"\nsize = "1GiB"\n`;
    const parsed = parseConfig(text, `${scene.directory}/a.toml`);
    assert.ok(parsed.ok && parsed.config.role === "member");
    await (await openMetadata(parsed.config.group, silentLog, { callMs: 100 })).close();
  };
  await assert.rejects(
    open(`ca = "ca.pem"`),
    /Cannot read ca of metadata_tls ".*\/ca\.pem": there is no such file\. Correct \[group\] metadata_tls\./,
  );
  scene.file("ca.pem", "certificate");
  await assert.rejects(
    open(`ca = "ca.pem"`),
    /Cannot use ca of metadata_tls .*: there is no CERTIFICATE in it/,
  );
  scene.file("m.pem", "-----BEGIN CERTIFICATE-----\n");
  await assert.rejects(
    open(`cert = "m.pem", key = "m.pem"`),
    /Cannot use key of metadata_tls .*: there is no PRIVATE KEY in it/,
  );
});
