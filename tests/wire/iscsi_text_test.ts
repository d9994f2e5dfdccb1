// Without this, a malformed login text could throw, or a value could be read as something it is not.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import {
  formatBase64,
  formatHex,
  formatText,
  isKeyName,
  isTextValue,
  parseBinary,
  parseBoolean,
  parseList,
  parseNumber,
  parseRange,
  parseText,
  textLimits,
} from "../../lib/wire/iscsi/text.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);

function parse(text: string, pairsMax?: number) {
  const bytes = bytesOf(`dirt\0${text}dirt`);
  return parseText(bytes, 5, bytes.length - 4, pairsMax);
}

Deno.test("text is parsed into pairs, in order, values with = and empty values included", () => {
  assert.deepEqual(parse("InitiatorName=iqn.2026-11.a:b\0SessionType=Normal\0X-a=\0X-b=c=d\0"), {
    kind: "pairs",
    pairs: [
      { key: "InitiatorName", value: "iqn.2026-11.a:b" },
      { key: "SessionType", value: "Normal" },
      { key: "X-a", value: "" },
      { key: "X-b", value: "c=d" },
    ],
  });
  assert.deepEqual(parse(""), { kind: "pairs", pairs: [] });
  assert.deepEqual(parse("\0\0A=1\0\0"), { kind: "pairs", pairs: [{ key: "A", value: "1" }] });
});

Deno.test("malformed text is a verdict", () => {
  const reasonOf = (text: string, pairsMax?: number) => {
    const parsed = parse(text, pairsMax);
    return parsed.kind === "malformed" ? parsed.reason : "accepted";
  };
  assert.match(reasonOf("A=1"), /without NUL after 3 bytes/);
  assert.match(reasonOf("Abc\0"), /no "="/);
  assert.match(reasonOf("Abc\0D=1\0"), /no "="/);
  assert.match(reasonOf("=1\0"), /standard label/);
  assert.match(reasonOf("abc=1\0"), /standard label/);
  assert.match(reasonOf("A b=1\0"), /standard label/);
  assert.match(reasonOf(`A${"a".repeat(63)}=1\0`), /key of 64 bytes; 63/);
  assert.match(reasonOf(`A=${"a".repeat(8193)}\0`), /8193 bytes; 8192/);
  assert.match(reasonOf("A=1\0B=2\0C=3\0", 2), /more than 2 pairs/);
  const notUtf8 = Uint8Array.of(0x41, 0x3d, 0xff, 0xfe, 0);
  assert.equal(parseText(notUtf8, 0, 5).kind, "malformed");
  assert.equal(parse(`A${"a".repeat(62)}=${"v".repeat(textLimits.valueBytesMax)}\0`).kind, "pairs");
});

Deno.test("numbers are decimal or hexadecimal constants below 2^64, without leading zeroes", () => {
  const good: [string, number][] = [["0", 0], ["8192", 8192], ["0x10", 16], ["0XfF", 255], [
    "16777215",
    2 ** 24 - 1,
  ]];
  for (const [value, number] of good) assert.equal(parseNumber(value), number, value);
  const bad = [
    "",
    "-1",
    "+1",
    "1.5",
    "01",
    "1e3",
    " 1",
    "1 ",
    "0x",
    "0xg",
    "Yes",
    "18446744073709551616",
    "0b1",
  ];
  for (const value of bad) assert.equal(parseNumber(value), null, value);
  assert.ok(parseNumber("18446744073709549568")! > 2 ** 53);
  assert.equal(parseNumber("0x10000000000000000"), null);
});

Deno.test("booleans, ranges and lists", () => {
  assert.deepEqual(["Yes", "No", "yes", ""].map(parseBoolean), [true, false, null, null]);
  assert.deepEqual(parseRange("2048~0x2000"), { from: 2048, to: 8192 });
  for (const value of ["8~1", "1~", "~1", "1", "1~2~3"]) assert.equal(parseRange(value), null, value);
  assert.deepEqual(parseList("CRC32C,None"), ["CRC32C", "None"]);
  for (const value of ["", "a,", ",a", "a,,b", "a b"]) assert.equal(parseList(value), null, value);
  assert.ok(
    isTextValue("[::1]:3260,1".replace(",", "/")) && !isTextValue("ä") && !isTextValue("a".repeat(256)),
  );
  assert.ok(isKeyName("X-com.example.Key_1@+") && !isKeyName("x") && !isKeyName(""));
});

Deno.test("binary values, in both encodings, by RFC 4648's examples and by hand", () => {
  const base64 = ["0bZg==", "0bZm8=", "0bZm9v", "0bZm9vYg==", "0bZm9vYmE=", "0BZm9vYmFy"];
  base64.forEach((value, i) => {
    assert.deepEqual(parseBinary(value, 16), bytesOf("foobar".slice(0, i + 1)), value);
    assert.equal(formatBase64(bytesOf("foobar".slice(0, i + 1))), `0b${value.slice(2)}`);
  });
  assert.deepEqual(parseBinary("0x00aBFf", 3), Uint8Array.of(0x00, 0xab, 0xff));
  const bad = [
    "",
    "0x",
    "0b",
    "0x1",
    "0xgg",
    "0b=",
    "0bZg=",
    "0bZg",
    "0bZ===",
    "0bZm=v",
    "12",
    "Zm9v",
    "0bZm9v\n",
  ];
  for (const value of bad) assert.equal(parseBinary(value, 16), null, value);
  assert.equal(parseBinary("0x010203", 2), null);
  assert.equal(parseBinary("0bZm9v", 2), null);
});

Deno.test("fuzz: binary values round trip", () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (bytes) => {
    assert.deepEqual([...parseBinary(formatHex(bytes), 300)!], [...bytes]);
    assert.deepEqual([...parseBinary(formatBase64(bytes), 300)!], [...bytes]);
  }));
});

Deno.test("fuzz: pairs round trip, and no bytes make the parsers throw", () => {
  const label = fc.stringMatching(/^[A-Z][A-Za-z0-9.\-+@_]{0,62}$/);
  const value = fc.string({ unit: "grapheme", maxLength: 100 }).filter((v) => !v.includes("\0"));
  fc.assert(fc.property(fc.array(fc.record({ key: label, value }), { maxLength: 20 }), (pairs) => {
    const bytes = formatText(pairs);
    const parsed = parseText(bytes, 0, bytes.length);
    assert.ok(parsed.kind === "pairs");
    assert.deepEqual(parsed.pairs.map((p) => ({ ...p })), pairs.map((p) => ({ ...p })));
  }));
  const texty = fc.uint8Array({ maxLength: 200 }).map((b) => b.map((x) => (x < 40 ? 0 : x < 80 ? 0x3d : x)));
  fc.assert(fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), texty), (bytes) => {
    const parsed = parseText(bytes, 0, bytes.length, 8);
    if (parsed.kind === "malformed") return;
    assert.ok(parsed.pairs.length <= 8);
    for (const pair of parsed.pairs) assert.ok(isKeyName(pair.key));
  }));
  fc.assert(fc.property(fc.string({ maxLength: 40 }), (text) => {
    parseNumber(text), parseRange(text), parseList(text), parseBinary(text, 8), parseBinary(`0b${text}`, 8);
  }));
});
