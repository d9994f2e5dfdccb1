// Without this, a wrong configuration starts half a member, or a right one is refused.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { formatProblem, type MemberConfig, parseConfig, type ParseResult } from "../../lib/config/mod.ts";
import { base, complaint, config, file, group, member, problems } from "./config_texts.ts";

const shipped = await Deno.readTextFile(new URL("../../appliance.toml", import.meta.url));

Deno.test("the shipped appliance.toml is right, and its paths are relative to it", () => {
  const result = parseConfig(shipped, file);
  assert.ok(result.ok);
  assert.deepEqual(result.warnings, []);
  assert.deepEqual(result.config, {
    role: "member",
    file,
    group: {
      name: "demo",
      metadata: { kind: "sqlite", path: "etc/var/group.db" },
      secretFile: "etc/var/group.secret",
      iqnPrefix: "iqn.2026-11.net.plimsoll.demo",
      pageBytes: 4194304,
      portal: null,
      loginPolicy: "affinity",
    },
    member: {
      name: "alpha",
      portals: [{ hostname: "127.0.0.1", port: 3260 }, { hostname: "::1", port: 3260 }],
      peer: { hostname: "127.0.0.1", port: 3262 },
      admin: { hostname: "127.0.0.1", port: 3280 },
      stateDir: "etc/var/alpha",
      engine: "auto",
      workers: "auto",
      shortCut: "auto",
      shortCutBytes: 256 * 1024,
    },
    disks: [{
      path: "etc/var/alpha/disk0.img",
      sizeBytes: 8 * 2 ** 30,
      direct: false,
      line: lineOf(shipped, "[[disk]]"),
    }],
    volumes: [{
      name: "vol0",
      sizeBytes: 4 * 2 ** 30,
      blockBytes: 512,
      writeCache: true,
      initiators: null,
      chap: null,
      mutual: null,
      line: lineOf(shipped, "[[volume]]"),
    }],
    balance: {
      reportMs: 1000,
      settleMs: 30_000,
      dwellMs: 120_000,
      logoutSeconds: 3,
      deadBand: 0.25,
      workMin: 1000,
      movesMax: 2,
      noRedirect: [],
      heat: true,
      heatFactor: 2,
      heatMinUs: 1000,
      heatMs: 180_000,
      heatDwellMs: 1_800_000,
    },
  });
});

function lineOf(text: string, line: string): number {
  return text.split("\n").indexOf(line) + 1;
}

Deno.test("every optional key is read", () => {
  const got = config(`
[group]
name = "g1"
metadata = "etcd:https://10.0.0.1:2379, https://etcd.example.com:2379"
metadata_tls = { ca = "ca.pem", cert = "/abs/m.pem", key = "../m.key" }
secret_file = "/etc/secret"
iqn_prefix = "iqn.2026-01.com.example:san"
page_size = "16MiB"
portal = "10.0.0.100:3260"
login_policy = "round-robin"
[member]
name = "alpha"
portals = ["10.0.0.1:3260", "[FD00:0::1]:3260"]
peer = "10.1.0.1:3262"
admin = "[::1]:3280"
state_dir = "."
workers = 3
short_cut = "off"
short_cut_bytes = 0
[[disk]]
path = "/dev/sdb"
[[disk]]
path = "d.img"
size = "500GB"
[[volume]]
name = "a"
size = "1TiB"
block_size = 4096
write_cache = false
initiators = ["iqn.2026-01.*", "*"]
chap = { user = "u", secret_file = "vol0.chap" }
mutual.user = "m"
mutual.secret = "0123456789abcdef"
[balance]
report_seconds = 0.5
settle_seconds = 5
dwell_seconds = 60
logout_seconds = 2
dead_band = 0.5
work_min = 10
moves_at_once = 4
no_redirect = ["iqn.2026-01.com.example.old:*"]
heat = false
heat_factor = 3.5
heat_min_us = 200
heat_seconds = 60
heat_dwell_seconds = 600
`) as MemberConfig;
  assert.deepEqual(got.group, {
    name: "g1",
    metadata: {
      kind: "etcd",
      endpoints: ["https://10.0.0.1:2379", "https://etcd.example.com:2379"],
      tls: { ca: "etc/ca.pem", cert: "/abs/m.pem", key: "m.key" },
    },
    secretFile: "/etc/secret",
    iqnPrefix: "iqn.2026-01.com.example:san",
    pageBytes: 16 * 2 ** 20,
    portal: { hostname: "10.0.0.100", port: 3260 },
    loginPolicy: "round-robin",
  });
  assert.deepEqual(got.balance, {
    reportMs: 500,
    settleMs: 5_000,
    dwellMs: 60_000,
    logoutSeconds: 2,
    deadBand: 0.5,
    workMin: 10,
    movesMax: 4,
    noRedirect: ["iqn.2026-01.com.example.old:*"],
    heat: false,
    heatFactor: 3.5,
    heatMinUs: 200,
    heatMs: 60_000,
    heatDwellMs: 600_000,
  });
  assert.deepEqual(got.member, {
    name: "alpha",
    portals: [{ hostname: "10.0.0.1", port: 3260 }, { hostname: "fd00::1", port: 3260 }],
    peer: { hostname: "10.1.0.1", port: 3262 },
    admin: { hostname: "::1", port: 3280 },
    stateDir: "etc",
    engine: "auto",
    workers: 3,
    shortCut: "off",
    shortCutBytes: 0,
  });
  assert.deepEqual(got.disks.map(({ path, sizeBytes }) => [path, sizeBytes]), [["/dev/sdb", null], [
    "etc/d.img",
    500e9,
  ]]);
  assert.deepEqual(got.volumes[0], {
    name: "a",
    sizeBytes: 2 ** 40,
    blockBytes: 4096,
    writeCache: false,
    initiators: ["iqn.2026-01.*", "*"],
    chap: { user: "u", secret: { kind: "file", path: "etc/vol0.chap" } },
    mutual: { user: "m", secret: { kind: "inline", secret: "0123456789abcdef" } },
    line: 25,
  });
});

Deno.test("all complaints come at once, in order, each with file, line, key, value and what would be right", () => {
  const result = parseConfig(
    `[group]
name = "Demo"
metadata = "postgres:x"
secret_file = ""
iqn_prefix = "eui.0011223344556677"
page_size = "3MiB"
[member]
name = "alpha"
portals = ["0.0.0.0:3260", "10.0.0.1", 7]
admin = "10.0.0.1:3280"
[[volume]]
nmae = "vol0"
size = "4Gib"
write_cache = "yes"
[storage]
`,
    file,
  );
  assert.ok(!result.ok);
  assert.deepEqual(result.problems.map(({ line, key, value }) => [line, key, value]), [
    [2, "group.name", '"Demo"'],
    [3, "group.metadata", '"postgres:x"'],
    [4, "group.secret_file", '""'],
    [5, "group.iqn_prefix", '"eui.0011223344556677"'],
    [6, "group.page_size", '"3MiB"'],
    [7, "member", ""],
    [9, "member.portals[0]", '"0.0.0.0:3260"'],
    [9, "member.portals[1]", '"10.0.0.1"'],
    [9, "member.portals[2]", "7"],
    [10, "member.admin", '"10.0.0.1:3280"'],
    [11, "volume[0]", ""],
    [12, "volume[0].nmae", ""],
    [13, "volume[0].size", '"4Gib"'],
    [14, "volume[0].write_cache", '"yes"'],
    [15, "storage", ""],
  ]);
  for (const problem of result.problems) {
    assert.equal(problem.file, file);
    assert.ok(problem.column! >= 1 && problem.expected !== "", problem.message);
    assert.ok(
      problem.message.includes(problem.value) && problem.message.includes(problem.expected),
      problem.message,
    );
  }
  assert.equal(
    formatProblem(result.problems[12]!),
    'etc/appliance.toml:13:8: Cannot use volume[0].size = "4Gib": it is not a size. ' +
      'Expected a size such as "4GiB", "500GB" or a number of bytes.',
  );
});

Deno.test("unknown keys: slips get a suggestion, others the list", () => {
  const volume = (line: string) =>
    `${base}[[volume]]\nname = "v"\nsize = 512\nchap = { user = "u", secret = "0123456789ab" }\n${line}\n`;
  assert.match(
    complaint(volume("blocksize = 512")),
    /:15:1: Unknown key "blocksize" in volume\[0\]\. Expected block_size\./,
  );
  assert.match(complaint(volume("writeCache = true")), /Expected write_cache\./);
  assert.match(complaint(volume("colour = 1")), /Expected one of name, block_size, size, /);
  assert.match(complaint(volume("__proto__ = 1")), /Unknown key "__proto__"/);
  assert.match(complaint(`engine = "auto"\n${base}`), /:1:1: Unknown key "engine" in the file\./);
});

Deno.test("the group's address is no member's own, and can go to another machine", () => {
  const portal = (text: string) => base.replace("[member]", `portal = "${text}"\n[member]`);
  assert.match(
    complaint(portal("10.0.0.1:3261")),
    /:6:\d+: Cannot use group\.portal .* same IP address for itself/,
  );
  assert.match(
    complaint(portal("127.0.0.1:3260")),
    /:6:\d+: Cannot use group\.portal .* no other machine can take over/,
  );
  assert.match(complaint(portal("10.0.0.100")), /group\.portal .* no port/);
  assert.deepEqual(parseConfig(portal("10.0.0.100:3260"), file).warnings, []);
  const other = parseConfig(portal("[fd00::100]:3260"), file);
  assert.ok(other.ok);
  assert.match(
    formatProblem(other.warnings[0]!),
    /no portal of this member is an IPv6 address, so it cannot hold it/,
  );
});

Deno.test("what is not TOML is one complaint with its line", () => {
  assert.match(
    complaint(`${base}x = "unterminated\n`),
    /^etc\/appliance\.toml:11:\d+: Cannot read it as TOML: unterminated string/,
  );
  assert.match(complaint(`${base}[member]\n`), /:11:\d+: .*multiple times/);
  assert.match(complaint("a = ".padEnd(2_000_000, "[")), /characters/);
});

Deno.test("an empty file says what is missing", () => {
  const all = problems("");
  assert.match(all[0]!, /Missing \[group\]/);
  assert.match(all[1]!, /Missing \[member\]/);
  assert.equal(all.length, 2);
});

Deno.test("addresses: numeric, with a port, of one interface, each used once, admin on loopback", () => {
  const portal = (text: string) => base.replace('["10.0.0.1:3260"]', JSON.stringify([text]));
  for (
    const [text, reason] of [
      ["0.0.0.0:3260", /every interface/],
      ["[::]:3260", /every interface/],
      ["[0:0::0]:3260", /every interface/],
      ["::1:3260", /brackets/],
      ["10.0.0.1", /no port/],
      ["10.0.0.1:0", /not a port/],
      ["10.0.0.1:65536", /not a port/],
      ["10.0.0.1:32a", /not a port/],
      ["10.0.0.256:3260", /not an IP address/],
      ["010.0.0.1:3260", /not an IP address/],
      ["san.example.com:3260", /name where a numeric address/],
      ["[fe80::1%eth0]:3260", /not an IP address/],
      ["", /not an IP address/],
    ] as const
  ) assert.match(complaint(portal(text)), reason, text);
  assert.match(complaint(base.replace('["10.0.0.1:3260"]', "[]")), /member\.portals = \[\]: it is empty/);
  assert.match(
    complaint(base.replace('["10.0.0.1:3260"]', '["10.0.0.1:3260", "10.0.0.2:3260", "10.0.0.1:3260"]')),
    /:8:\d+: Cannot use member\.portals\[2\] = "10\.0\.0\.1:3260": member\.portals\[0\] has the same address/,
  );
  assert.match(
    complaint(base.replace('["10.0.0.1:3260"]', '["127.0.0.1:3280"]')),
    /:9:\d+: Cannot use member\.admin .* member\.portals\[0\] has the same address/,
  );
  assert.match(complaint(base.replace("127.0.0.1:3280", "10.0.0.1:3280")), /not a loopback address/);
  assert.doesNotMatch(
    complaint(base.replace("127.0.0.1:3280", "0.0.0.0:3280")),
    /initiators/,
    "none comes to admin",
  );
});

Deno.test("the group's rules: name, iqn_prefix, page size, metadata", () => {
  const wrong: [string, string, RegExp][] = [
    ['"demo"', '"de mo"', /contains " "/],
    ['"demo"', '"-demo"', /begins or ends with/],
    ['"demo"', `"${"x".repeat(65)}"`, /65 characters/],
    ["iqn.2026-11.net.plimsoll.demo", "iqn.2026-13.net.plimsoll", /group\.iqn_prefix/],
    [
      "iqn.2026-11.net.plimsoll.demo",
      "iqn.2026-11.NET.plimsoll",
      /normal form, which is "iqn\.2026-11\.net\.plimsoll"/,
    ],
    ["iqn.2026-11.net.plimsoll.demo", "iqn.2026-11.net.plimsoll:", /ends with ":"/],
    ["sqlite:var/group.db", "sqlite:", /it is empty/],
    ["sqlite:var/group.db", "etcd:10.0.0.1:2379", /not an http or https address/],
    ["sqlite:var/group.db", "etcd:https://10.0.0.1:2379/x", /behind the host and port/],
    ["sqlite:var/group.db", "etcd:https://u:p@10.0.0.1:2379", /user or password/],
    ["var/group.secret", "~/group.secret", /"~" is not expanded/],
  ];
  for (const [from, to, reason] of wrong) assert.match(complaint(base.replace(from, to)), reason, to);
  for (const size of ['"512KiB"', '"128MiB"', '"3MiB"', '"0"', "true", '"x"']) {
    assert.match(
      complaint(base.replace("[member]", `page_size = ${size}\n[member]`)),
      /:6:\d+: Cannot use group\.page_size/,
      size,
    );
  }
  const tls = base.replace("[member]", 'metadata_tls = { ca = "ca.pem" }\n[member]');
  assert.match(complaint(tls), /metadata_tls: the metadata is in SQLite/);
  assert.match(
    complaint(tls.replace("sqlite:var/group.db", "etcd:https://a:1").replace("ca = ", "cert = ")),
    /Missing key in group\.metadata_tls/,
  );
});

function warnings(result: ParseResult): string[] {
  return result.warnings.map(formatProblem);
}

Deno.test("warnings do not refuse: plain http off loopback, a volume nobody reaches, a secret Windows does not take", () => {
  const etcd = (urls: string) => parseConfig(base.replace("sqlite:var/group.db", `etcd:${urls}`), file);
  assert.deepEqual(
    warnings(etcd("http://127.0.0.1:2379,http://localhost:2379,http://[::1]:2379,https://a:1")),
    [],
  );
  const plain = etcd("http://10.0.0.1:2379");
  assert.ok(plain.ok);
  assert.match(
    warnings(plain)[0]!,
    /:3:12: Warning for group\.metadata .*http:\/\/10\.0\.0\.1:2379 is not encrypted/,
  );

  const volume = `${base}[[volume]]\nname = "v"\nsize = "1MiB"\n`;
  assert.match(warnings(parseConfig(volume, file))[0]!, /:11:1: .*nobody can use volume "v"/);
  assert.match(warnings(parseConfig(`${volume}initiators = []`, file))[0]!, /nobody can use the volume/);
  assert.deepEqual(warnings(parseConfig(`${volume}initiators = ["*"]`, file)), []);
  assert.match(
    warnings(parseConfig(`${volume}chap = { user = "u", secret = "0123456789abcdefg" }`, file))[0]!,
    /Windows initiators take secrets of 16 bytes at most/,
  );
});

Deno.test("disks: a file needs a size, a device does not, and each path is there once however it is written", () => {
  assert.match(complaint(`${base}[[disk]]\npath = "d.img"\n`), /Missing size in disk\[0\]/);
  assert.match(complaint(`${base}[[disk]]\nsize = "1GiB"\n`), /Missing path in disk\[0\]/);
  assert.match(complaint(`${base}[[disk]]\npath = "d.img"\nsize = "8MiB"\n`), /less than 4 pages of 4MiB/);
  assert.match(complaint(`${base}[[disk]]\npath = "d.img"\nsize = 100000001\n`), /not a multiple of 512/);
  const twice =
    `${base}[[disk]]\npath = "var/../d.img"\nsize = "1GiB"\n[[disk]]\npath = "./d.img"\nsize = "1GiB"\n`;
  assert.match(complaint(twice), /disk\[1\]\.path = "\.\/d\.img": disk\[0\]\.path in line 12 is the same/);
});

Deno.test("engine and direct: one of two names, true or false", () => {
  const portable = config(`${group}${member}engine = "portable"\n[[disk]]\npath = "/dev/x"\ndirect = true\n`);
  assert.equal(portable.role === "member" && portable.member.engine, "portable");
  assert.equal(portable.role === "member" && portable.disks[0]!.direct, true);
  assert.match(
    complaint(`${group}${member}engine = "fast"\n`),
    /member\.engine = "fast".*"auto" or "portable"/,
  );
  assert.match(
    complaint(`${base}[[disk]]\npath = "/dev/x"\ndirect = "yes"\n`),
    /disk\[0\]\.direct.*true or false/,
  );
});

Deno.test("workers: auto, or a number of threads that there may be", () => {
  const wrong = (value: string) => complaint(`${group}${member}workers = ${value}\n`);
  for (const value of ["0", "17", "1.5", '"many"', "true"]) {
    assert.match(wrong(value), /member\.workers.*"auto" or a whole number from 1 to 16/, value);
  }
});

Deno.test("no text makes the parser throw, and a refusal has a complaint", () => {
  const tried = (text: string) => {
    const result = parseConfig(text, file);
    if (!result.ok) assert.ok(result.problems.length > 0);
  };
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), tried), { numRuns: 300 });
  // Texts that are nearly right: lines of a right one, taken out, doubled, and with single characters changed.
  const lines =
    `${shipped}\n${member}mutual.user = 1\nchap = { user = [] }\nsize = inf\n[[volume.x]]\n[disk.y]\n`.split(
      "\n",
    );
  const mutated = fc.array(fc.tuple(fc.nat(lines.length - 1), fc.nat(30), fc.string({ maxLength: 2 })), {
    maxLength: 40,
  })
    .map((picks) =>
      picks.map(([i, at, put]) => {
        const line = lines[i]!;
        return put === "" ? line : line.slice(0, at) + put + line.slice(at + 1);
      }).join("\n")
    );
  fc.assert(fc.property(mutated, tried), { numRuns: 500 });
  tried(`a = ${"[".repeat(200_000)}`);
  tried(`${"a.".repeat(100_000)}b = 1`);
});

Deno.test("a right configuration with one value of another type is refused, never misread", () => {
  const lines = shipped.split("\n");
  const values = ["1", "-1.5", "inf", "nan", "true", "1979-05-27", "[]", "{}", '""', "[[1]]", '{ a = "x" }'];
  for (const [i, line] of lines.entries()) {
    const match = /^(\w+) = /.exec(line);
    if (match === null) continue;
    for (const value of values) {
      const result = parseConfig(lines.with(i, `${match[1]} = ${value}`).join("\n"), file);
      if (result.ok) assert.fail(`${match[1]} = ${value} was taken`);
      assert.ok(result.problems.some((problem) => problem.line === i + 1), `${match[1]} = ${value}`);
    }
  }
});

Deno.test("what [balance] cannot be is refused with what it may be", () => {
  const problems = (text: string) => {
    const result = parseConfig(`${base}[balance]\n${text}\n`, file);
    assert.ok(!result.ok);
    return result.problems.map(({ message, expected }) => `${message} ${expected}`).join("\n");
  };
  assert.match(problems("dead_band = 0"), /dead_band = 0.*out of range.*from 0\.05 to 10/s);
  assert.match(problems("moves_at_once = 1.5"), /not a whole number/);
  assert.match(problems('dwell_seconds = "1h"'), /not a number.*of seconds from 1 to 86400/s);
  assert.match(problems("no_redirect = [1]"), /no_redirect/);
  assert.match(problems("heat_factor = 1"), /heat_factor = 1.*from 1\.2 to 100/s);
  assert.match(problems('heat = "no"'), /heat/);
  const policy = parseConfig(base.replace("[member]", 'login_policy = "best"\n[member]'), file);
  assert.ok(!policy.ok);
  assert.match(policy.problems[0]!.message, /no such policy/);
});
