// Without this, a volume is made that initiators cannot use, or a message shows its secret.

import { strict as assert } from "node:assert";
import { parseConfig } from "../../lib/config/mod.ts";
import { base, complaint, config, file } from "./config_texts.ts";

Deno.test("volumes: size, block size, names, and each name once", () => {
  const volume = (lines: string) => `${base}[[volume]]\ninitiators = ["*"]\n${lines}\n`;
  assert.match(complaint(volume('name = "v"')), /:11:\d+: Missing size in volume\[0\]/);
  assert.match(complaint(volume("size = 512")), /Missing name in volume\[0\]/);
  assert.match(
    complaint(volume('name = "v"\nsize = 513')),
    /not a multiple of the block size 512 \(1KiB is the next\)/,
  );
  assert.match(complaint(volume('name = "v"\nsize = "1.5KiB"\nblock_size = 4096')), /block size 4096/);
  assert.match(
    complaint(volume('name = "v"\nsize = 512\nblock_size = 1024')),
    /no block size\. Expected 512 or 4096/,
  );
  assert.match(complaint(volume('name = "v"\nsize = "1PiB"')), /more than 16777216 pages of 4MiB/);
  assert.match(complaint(volume('name = "v"\nsize = -1')), /not a size/);
  assert.match(complaint(volume('name = "a/b"\nsize = 512')), /contains "\/"/);
  assert.match(
    complaint(volume('name = "v"\nsize = 512\ninitiators = ["a b"]').replace('initiators = ["*"]\n', "")),
    /contains " "/,
  );
  const twice = volume('name = "v"\nsize = 512') + '[[volume]]\nname = "v"\nsize = 512\ninitiators = ["*"]\n';
  assert.match(
    complaint(twice),
    /:16:\d+: Cannot use volume\[1\]\.name = "v": volume\[0\]\.name in line 13 is the same/,
  );
  assert.match(
    complaint(`${base}[volume]\nname = "v"\nsize = 512`),
    /it is one table\. Expected \[\[volume\]\], once for each/,
  );
  const long = base.replace("net.plimsoll.demo", `net.${"x".repeat(200)}`) +
    '[[volume]]\nname = "abcdefg"\nsize = 512\ninitiators = ["*"]';
  assert.match(complaint(long), /the iSCSI name .* 223 are allowed/);
});

Deno.test("CHAP: one secret, 12 bytes at least, mutual beside chap and different from it", () => {
  const volume = (lines: string) => `${base}[[volume]]\nname = "v"\nsize = 512\n${lines}\n`;
  const open = 'initiators = ["*"]\n';
  const right = 'chap = { user = "u", secret = "aaaaaaaaaaaa" }\n';
  assert.match(complaint(volume('chap = { user = "u" }')), /volume\[0\]\.chap: it has no secret/);
  assert.match(
    complaint(volume('chap = { user = "u", secret = "aaaaaaaaaaaa", secret_file = "f" }')),
    /secret and secret_file/,
  );
  assert.match(complaint(volume('chap = { secret_file = "f" }')), /Missing user in volume\[0\]\.chap/);
  assert.match(complaint(volume('chap = { user = "a b", secret_file = "f" }')), /no CHAP user name/);
  assert.match(complaint(volume('chap = "u:ppppppppppppp"')), /volume\[0\]\.chap: it is a text/);
  assert.match(
    complaint(volume(`${open}mutual = { user = "m", secret_file = "f" }`)),
    /Missing chap in volume\[0\]/,
  );
  assert.match(
    complaint(volume(`${right}mutual = { user = "m", secret = "aaaaaaaaaaaa" }`)),
    /mutual: it has the secret of chap/,
  );
  const files = volume(
    'chap = { user = "u", secret_file = "a" }\nmutual = { user = "m", secret_file = "./a" }',
  );
  assert.match(complaint(files), /mutual: it has the secret of chap/);
  config(volume(`${right}mutual = { user = "m", secret = "bbbbbbbbbbbb" }`));
});

Deno.test("no complaint and no warning contains a secret", () => {
  const secret = "s3cr3t-s3cr3t-s3cr3t";
  const volume = (lines: string) =>
    parseConfig(`${base}[[volume]]\nname = "v"\nsize = 513\n${lines}\n`, file);
  const results = [
    volume(`chap = { user = "u", secret = "${secret.slice(0, 6)}" }`),
    volume(`chap = { user = "u", secrt = "${secret}" }`),
    volume(`chap = { user = "a ${secret}", secret = "${secret}" }`),
    volume(`chap = "u:${secret}"`),
    volume(`chap = ["u", "${secret}"]`),
    volume(`chap_secret = "${secret}"`),
    volume(`chap = { user = "u", secret = "${secret}" }\nmutual = { user = "m", secret = "${secret}" }`),
    volume(`chap = { user = "u", secret = "${secret}`),
    volume(`chap = { user = "u", secret = ["${secret}"] }`),
    parseConfig(`secret = "${secret}"\n${base}`, file),
  ];
  for (const result of results) {
    const said = JSON.stringify(result.ok ? result.warnings : [result.problems, result.warnings]);
    assert.ok(!result.ok, said);
    assert.ok(!said.includes("s3cr3t"), said);
  }
});
