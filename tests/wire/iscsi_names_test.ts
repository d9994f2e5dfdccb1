// Without this, one initiator could have two names, or a name that forges another in a pattern or a TransportID.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { matchesNamePattern, normalizeIscsiName, parseIscsiName } from "../../lib/wire/iscsi/names.ts";

Deno.test("the examples of RFC 7143 §4.2.7 are names", () => {
  const names = [
    "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
    "iqn.2001-04.com.example",
    "iqn.2001-04.com.example:storage.tape1.sys1.xyz",
    "eui.02004567a425678d",
    "naa.52004567ba64678d",
    "naa.62004567ba64678d0123456789abcdef",
  ];
  for (const name of names) assert.equal(normalizeIscsiName(name), name);
});

Deno.test("names are compared in lower case and NFKC", () => {
  assert.equal(normalizeIscsiName("IQN.1991-05.COM.Microsoft:Host"), "iqn.1991-05.com.microsoft:host");
  assert.equal(normalizeIscsiName("EUI.02004567A425678D"), "eui.02004567a425678d");
  assert.equal(normalizeIscsiName("iqn.2026-11.net.a:\uff21\u212b"), "iqn.2026-11.net.a:a\u00e5");
});

Deno.test("what is no name says why", () => {
  const reason = (text: string, manner?: "tolerant") => {
    const parsed = parseIscsiName(text, manner);
    return parsed.kind === "invalid" ? parsed.reason : "accepted";
  };
  assert.match(reason(""), /begins with none/);
  assert.match(reason("disk0"), /begins with none/);
  assert.match(reason("iqn."), /nothing follows/);
  assert.match(reason("iqn.2026-13.net.a"), /of the form/);
  assert.match(reason("iqn.2026-11."), /of the form/);
  assert.match(reason("iqn.2026-11.a..b"), /of the form/);
  assert.match(reason("eui.0200"), /16 hexadecimal/);
  assert.match(reason("naa.52004567ba64678dff"), /16 or 32/);
  assert.match(reason("iqn.2026-11.net.a:b c"), /U\+0020/);
  assert.match(reason("iqn.2026-11.net.a:b_c"), /U\+005F/);
  assert.match(reason("iqn.2026-11.net.a:b\u0000"), /U\+0000/);
  assert.match(reason("iqn.2026-11.net.a:b\ud800"), /contains U\+D800/);
  assert.match(reason(`iqn.2026-11.net.a:${"b".repeat(206)}`), /224 bytes; 223/);
  assert.equal(reason(`iqn.2026-11.net.a:${"b".repeat(205)}`), "accepted");
  assert.equal(reason("iqn.1994-05.com.redhat:my_host", "tolerant"), "accepted");
  assert.equal(reason("iqn.host", "tolerant"), "accepted");
  assert.match(reason("iqn.host,i,0x1", "tolerant"), /U\+002C/);
  assert.match(reason("host", "tolerant"), /begins with none/);
});

Deno.test("patterns: a star stands for any characters, and nothing matches by halves", () => {
  const name = "iqn.2026-01.net.plimsoll:host1";
  for (
    const p of [
      "*",
      name,
      "iqn.2026-01.*",
      "*host1",
      "iqn.*.net.*:host1",
      "IQN.2026-01.*",
      "iqn.2026-01.net.plimsoll:host1*",
    ]
  ) {
    assert.ok(matchesNamePattern(name, p), p);
  }
  for (
    const p of [
      "",
      "iqn.2026-01",
      "*host",
      "iqn.2027*",
      "iqn.2026-01.net.plimsoll:host1*1",
      "i*q*q*1",
      `${name}*${name}`,
    ]
  ) {
    assert.ok(!matchesNamePattern(name, p), p);
  }
});

Deno.test("fuzz: normalizing twice is normalizing once, and nothing throws", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 60 }), (tail) => {
    for (const manner of ["strict", "tolerant"] as const) {
      const name = normalizeIscsiName(`iqn.2026-11.net.a:${tail}`, manner);
      if (name !== null) assert.equal(normalizeIscsiName(name, manner), name);
    }
  }));
});
