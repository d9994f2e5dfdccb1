// Without these, metadata in etcd would be right only as long as etcd and the network are.

import { strict as assert } from "node:assert";
import type { Log, LogFields } from "../../lib/base/log.ts";
import { type EtcdOptions, openEtcdMetadata } from "../../lib/meta/etcd_metadata.ts";
import { type Metadata, OutcomeUnknownError } from "../../lib/meta/metadata.ts";
import { interop } from "../interop/tools.ts";
import { EtcdServer, Relay } from "./etcd_server.ts";

const text = (value: string) => new TextEncoder().encode(value);
const put = (key: string, value: string) => ({ kind: "put" as const, key, value: text(value) });
const valueOf = async (metadata: Metadata, key: string) => {
  const entry = await metadata.get(key);
  return entry === null ? null : new TextDecoder().decode(entry.value);
};

class Recorder implements Log {
  readonly lines: string[] = [];
  debug = () => {};
  info = (message: string, fields?: LogFields) =>
    void this.lines.push(`${message} ${JSON.stringify(fields)}`);
  warn = this.info;
  error = this.info;
}

/** Values of one key, as a watch tells them. */
class Watched {
  readonly values: string[] = [];
  lost = 0;
  #wake = () => {};
  seen: Parameters<Metadata["watch"]>[2] = (events) => {
    for (const event of events) {
      this.values.push(event.kind === "put" ? new TextDecoder().decode(event.entry.value) : "deleted");
    }
    this.#wake();
  };
  onLost = () => {
    this.lost++;
    this.#wake();
  };
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake = resolve);
  }
}

function faults(what: string, body: (server: EtcdServer) => Promise<void>): void {
  interop(`etcd: ${what}`, ["etcd"], async () => {
    const [server] = await EtcdServer.start();
    try {
      await body(server!);
    } finally {
      await server!.stop();
    }
  });
}

function open(urls: readonly string[], options: Partial<EtcdOptions> = {}): Promise<Metadata> {
  return openEtcdMetadata({ endpoints: urls, tls: null, group: "demo", ...options });
}

/** Long enough for a busy machine, where nothing is to go wrong. */
const patient = { times: { attemptMs: 10_000, callMs: 60_000 } };

faults("killed and started again, it has all it acknowledged, and watches go on", async (server) => {
  // Lost without it: a member that must be started again whenever etcd was.
  const metadata = await open([server.url], patient);
  const watched = new Watched();
  const { revision } = await metadata.commit([], [put("k", "0")]);
  const watch = metadata.watch("k", revision, watched.seen, watched.onLost);
  for (let i = 1; i <= 3; i++) {
    await metadata.commit([], [put("k", `${i}`)]);
    await server.kill();
    const waiting = metadata.commit([], [put("k", `${i} again`)]); // while it is away
    await server.restart();
    await waiting;
  }
  assert.equal(await valueOf(metadata, "k"), "3 again");
  await watched.until(() => watched.values.at(-1) === "3 again");
  assert.deepEqual(watched.values, ["1", "1 again", "2", "2 again", "3", "3 again"]);
  assert.equal(watched.lost, 0);
  watch.close();
  await metadata.close();
});

faults("away for longer than a call waits, callers are told which endpoint and why", async (server) => {
  // Lost without it: "fetch failed".
  const log = new Recorder();
  const metadata = await open([server.url], { log, times: { attemptMs: 5_000, callMs: 700 } });
  await metadata.commit([], [put("k", "1")]);
  await server.kill();
  const sentence = new RegExp(
    `Cannot read group metadata in etcd \\(${server.url}\\): ${server.url}: .*[Cc]onnection refused.*\\. Check that etcd runs`,
  );
  await assert.rejects(metadata.get("k"), sentence);
  await assert.rejects(metadata.commit([], [put("k", "2")]), (error: Error) => {
    assert.ok(error instanceof OutcomeUnknownError);
    assert.match(error.message, /whether it was done is not known/);
    return true;
  });
  await assert.rejects(metadata.renewLease(7), /Cannot change group metadata/);
  await server.restart();
  for (;;) {
    const result = await metadata.commit([], [put("k", "3")]).catch(() => null); // the machine may be busy
    if (result?.succeeded) break;
  }
  assert.equal(await valueOf(metadata, "k"), "3");
  assert.ok(log.lines.some((line) => line.startsWith("etcd endpoint does not answer")), log.lines.join("\n"));
  assert.ok(log.lines.some((line) => line.startsWith("etcd endpoint answers again")), log.lines.join("\n"));
  await metadata.close();
});

faults("paused, it stalls nobody for longer than a call may take, and goes on", async (server) => {
  // Lost without it: a member that hangs with an etcd that hangs.
  const metadata = await open([server.url], { times: { attemptMs: 300, callMs: 800, pingMs: 100 } });
  const { revision } = await metadata.commit([], [put("k", "1")]);
  const watched = new Watched();
  const watch = metadata.watch("k", revision, watched.seen, watched.onLost);
  server.signal("SIGSTOP");
  await assert.rejects(metadata.get("k"), /no answer within \d+ ms/);
  await assert.rejects(metadata.commit([], [put("k", "2")]), OutcomeUnknownError);
  server.signal("SIGCONT");
  for (;;) {
    const result = await metadata.commit([], [put("k", "3")]).catch(() => null);
    if (result?.succeeded) break;
  }
  await watched.until(() => watched.values.at(-1) === "3");
  assert.equal(
    await valueOf(metadata, "k"),
    "3",
    "the one before, whatever became of it, did not come after",
  );
  watch.close();
  await metadata.close();
});

faults("an endpoint that is not there is passed over", async (server) => {
  // Lost without it: a group that stands because one etcd of three does.
  const nobody = new Relay(1);
  const gone = nobody.url;
  nobody.close();
  const metadata = await open([gone, server.url], patient);
  await metadata.commit([], [put("k", "1")]);
  assert.equal(await valueOf(metadata, "k"), "1");
  await metadata.close();
  await assert.rejects(
    open([gone], { times: { callMs: 300 } }),
    /Cannot read group metadata in etcd \(.*Connection refused/i,
  );
});

faults("a watch that is cut at any moment goes on with the next event", async (server) => {
  // Lost without it: a volume made on another member, of which this one never hears.
  const relay = new Relay(server.port);
  const writer = await open([server.url], patient);
  const reader = await open([relay.url], {
    times: { attemptMs: 10_000, callMs: 60_000, backoffMs: 1, backoffMsMax: 5 },
  });
  const { revision } = await writer.commit([], [put("k", "0")]);
  const watched = new Watched();
  const watch = reader.watch("k", revision, watched.seen, watched.onLost);
  const wanted: string[] = [];
  for (let i = 1; i <= 150; i++) {
    wanted.push(String(i));
    await writer.commit([], [put("k", String(i))]);
    if (i % 7 === 0) relay.cut();
    if (i % 50 === 0) await watched.until(() => watched.values.length === i); // so that some cuts meet a watch in step
  }
  await watched.until(() => watched.values.at(-1) === "150");
  assert.deepEqual([watched.values, watched.lost], [wanted, 0]);
  watch.close();
  await reader.close();
  await writer.close();
  relay.close();
});

faults("a watch whose connection is dead without a sign is taken up again", async (server) => {
  // Lost without it: a cable pulled out, and a member that sees nothing for hours.
  const relay = new Relay(server.port);
  const writer = await open([server.url], patient);
  const reader = await open([relay.url], { times: { attemptMs: 500, callMs: 60_000, pingMs: 50 } });
  const { revision } = await writer.commit([], [put("k", "0")]);
  const watched = new Watched();
  const watch = reader.watch("k", revision, watched.seen, watched.onLost);
  await writer.commit([], [put("k", "1")]);
  await watched.until(() => watched.values.length === 1);
  relay.stalled = true;
  await writer.commit([], [put("k", "2")]); // its event is lost on the way
  await new Promise((resolve) => setTimeout(resolve, 1_000)); // connections of this time are dead for ever
  relay.stalled = false;
  await watched.until(() => watched.values.length === 2);
  assert.deepEqual(watched.values, ["1", "2"]);
  watch.close();
  await reader.close();
  await writer.close();
  relay.close();
});

for (const seed of [1, 2, 3]) {
  faults(`a transaction whose answer is lost is found out, seed ${seed}`, async (server) => {
    // Lost without it: a change made twice, or taken for not made.
    const relay = new Relay(server.port);
    const metadata = await open([relay.url], {
      times: { attemptMs: 10_000, callMs: 60_000, backoffMs: 1, backoffMsMax: 5 },
    });
    let state = seed;
    const roll = () => (state = (state * 48271) % 0x7fffffff) / 0x7fffffff;
    let lost = 0;
    relay.fate = () => {
      const chance = roll();
      if (chance < 0.6) return "pass";
      lost++;
      return chance < 0.75 ? "cut" : chance < 0.9 ? "answer" : "hold";
    };
    let last = await metadata.commit([{ key: "n", modRevision: 0 }], [put("n", "0")]);
    assert.equal(last.succeeded, true);
    for (let i = 1; i <= 60; i++) {
      const before = { key: "n", modRevision: last.revision };
      last = await metadata.commit([before], [put("n", String(i)), put(`seen/${i}`, "")]);
      assert.deepEqual([i, last.succeeded], [i, true]);
      assert.equal((await metadata.get("n"))?.modRevision, last.revision);
      const stale = await metadata.commit([before], [put("n", "stale")]);
      assert.equal(stale.succeeded, false, "what was overtaken is refused, also when its answer was lost");
    }
    assert.ok(lost > 30, `${lost} losses`);
    const held = relay.held;
    relay.fate = () => "pass";
    const before = (await metadata.list("")).entries;
    const answers = await relay.deliver(); // by now every one of them has been given up or repeated
    assert.ok(held > 0 && answers.length === held);
    assert.deepEqual(
      (await metadata.list("")).entries,
      before,
      "what was held up came late and changed something",
    );
    assert.equal(await valueOf(metadata, "n"), "60");
    await metadata.close();
    relay.close();
  });
}

faults("an unconditional change that was held up cannot undo a later one", async (server) => {
  // Lost without it: an old record over a new one, seconds after the new one was acknowledged.
  const relay = new Relay(server.port);
  const metadata = await open([relay.url], patient);
  await metadata.commit([], [put("k", "0")]);
  let holding = true;
  relay.fate = (request) => {
    if (!holding || !request.includes("/v3/kv/txn")) return "pass";
    holding = false;
    return "hold";
  };
  await metadata.commit([], [put("k", "old")]); // held, fenced off, and made again
  await metadata.commit([], [put("k", "new")]);
  assert.equal(relay.held, 1);
  const [answer] = await relay.deliver();
  assert.match(answer!, /^HTTP\/1\.1 200/, "the old one did arrive");
  assert.doesNotMatch(answer!, /"succeeded":true/);
  assert.equal(await valueOf(metadata, "k"), "new");
  await metadata.close();
  relay.close();
});

faults("a transaction that was given up is settled before the next", async (server) => {
  // Lost without it: the next record overtaken by one whose caller was told that its fate is unknown.
  const relay = new Relay(server.port);
  const metadata = await open([relay.url], { times: { attemptMs: 10_000, callMs: 1_500, backoffMs: 5 } });
  await metadata.commit([], [put("k", "0")]);
  let lose = true;
  relay.fate = (request) => {
    if (!lose || !request.includes("/v3/kv/txn")) return "pass";
    return request.includes(btoa("given up")) ? "answer" : "cut"; // the first arrives, no fence does
  };
  await assert.rejects(metadata.commit([], [put("k", "given up")]), OutcomeUnknownError);
  lose = false;
  await metadata.commit([], [put("l", "next")]);
  assert.equal(await valueOf(metadata, "k"), "given up", "it had been done");
  assert.equal(await valueOf(metadata, "l"), "next");
  await metadata.close();
  relay.close();
});

faults("a connection whose mark is gone makes another", async (server) => {
  // Lost without it: a member that stood still for hours and can then change nothing.
  const metadata = await open([server.url], patient);
  await metadata.commit([], [put("k", "1")]);
  const { leases } = await server.call("/v3/lease/leases", {}) as { leases: { ID: string }[] };
  for (const { ID } of leases) await server.call("/v3/lease/revoke", { ID });
  const before = (await metadata.get("k"))!.modRevision;
  assert.equal((await metadata.commit([{ key: "k", modRevision: before }], [put("k", "2")])).succeeded, true);
  assert.equal(
    (await metadata.commit([{ key: "k", modRevision: before }], [put("k", "3")])).succeeded,
    false,
  );
  assert.equal(await valueOf(metadata, "k"), "2");
  await metadata.close();
  const left = await server.call("/v3/kv/range", {
    key: btoa("plimsoll-writer/"),
    range_end: btoa("plimsoll-writer0"),
  });
  assert.equal(left.count, undefined, "a mark is taken away at the end");
});

faults("a list of many megabytes is of one revision", async (server) => {
  // Lost without it: routes of a large volume, half old and half new.
  const metadata = await open([server.url], patient);
  const chunk = new Uint8Array(65_536).fill(7);
  const key = (i: number) => `route/1/${String(i).padStart(6, "0")}`;
  for (let i = 0; i < 160; i += 16) {
    await metadata.commit(
      [],
      Array.from({ length: 16 }, (_, n) => ({ kind: "put", key: key(i + n), value: chunk })),
    );
  }
  const other = await open([server.url], patient);
  let going = true;
  const changing = (async () => {
    for (let i = 1; going; i++) {
      const value = text(`round ${i}`);
      await other.commit([], [0, 159].map((n) => ({ kind: "put", key: key(n), value })));
    }
  })();
  for (let i = 0; i < 5; i++) {
    const { entries, revision } = await metadata.list("route/1/");
    assert.equal(entries.length, 160);
    assert.deepEqual(
      entries[0]!.value,
      entries[159]!.value,
      "first and last page are of different revisions",
    );
    assert.ok(entries.every(({ modRevision }) => modRevision <= revision));
  }
  going = false;
  await changing;
  await other.close();
  await metadata.close();
});

faults("what is below another group's name is not seen", async (server) => {
  // Lost without it: two groups in one etcd that mix.
  const [demo, more] = await Promise.all([open([server.url]), open([server.url], { group: "demo2" })]);
  await demo.commit([], [put("k", "demo")]);
  await more.commit([], [put("k", "more")]);
  assert.deepEqual((await demo.list("")).entries.map(({ key }) => key), ["k"]);
  assert.equal(await valueOf(more, "k"), "more");
  await demo.close();
  await more.close();
});

faults("an etcd that asks for users and passwords is refused with what to do", async (server) => {
  // Lost without it: "invalid auth token" in a log, and nobody knows of whom.
  const base64 = (value: string) => btoa(value);
  await server.call("/v3/auth/user/add", { name: "root", password: "secret" });
  await server.call("/v3/auth/role/add", { name: "root" });
  await server.call("/v3/auth/user/grant", { user: "root", role: "root" });
  await server.call("/v3/auth/enable", {});
  assert.ok("error" in await server.call("/v3/kv/range", { key: base64("a") }));
  await assert.rejects(
    open([server.url]),
    /Cannot read group metadata in etcd .*Members prove themselves to etcd by their certificates \(metadata_tls\)/,
  );
});

faults("what answers there and is no etcd is refused with a sentence", async () => {
  // Lost without it: a port mistyped, and an error about JSON.
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("hello", { status: 404 }),
  );
  await assert.rejects(
    open([`http://127.0.0.1:${server.addr.port}`], { times: { callMs: 200 } }),
    /answered 404 without JSON: no etcd of version 3\.4 or later/,
  );
  await server.shutdown();
});

faults("an endpoint of another cluster is never written to", async (server) => {
  // Lost without it: a group forked over two etcds by a list that mixes them up.
  const [foreign] = await EtcdServer.start();
  try {
    const log = new Recorder();
    const metadata = await open([server.url, foreign!.url], {
      log,
      times: { attemptMs: 5_000, callMs: 600 },
    });
    await metadata.commit([], [put("k", "1")]);
    await server.kill();
    await assert.rejects(
      metadata.commit([], [put("k", "2")]),
      /belongs to another etcd cluster: correct metadata in \[group\]/,
    );
    const { count } = await foreign!.call("/v3/kv/range", { key: "AA==", range_end: "AA==" });
    assert.equal(count, undefined, "the foreign etcd holds something of ours");
    await metadata.close();
  } finally {
    await foreign!.stop();
  }
});

interop("etcd: of three members one after the other may die", ["etcd"], async () => {
  // Lost without it: the reason to have three.
  const servers = await EtcdServer.start(3);
  try {
    const metadata = await open(servers.map(({ url }) => url), {
      times: { attemptMs: 3_000, callMs: 60_000 },
    });
    let { revision } = await metadata.commit([], [put("k", "0")]);
    const watched = new Watched();
    const watch = metadata.watch("k", revision, watched.seen, watched.onLost);
    const wanted: string[] = [];
    for (const [i, server] of servers.entries()) {
      if (i % 2 === 0) await server.kill();
      else server.signal("SIGSTOP");
      for (const value of [`${i} a`, `${i} b`]) {
        wanted.push(value);
        const result = await metadata.commit([{ key: "k", modRevision: revision }], [put("k", value)]);
        assert.equal(result.succeeded, true);
        revision = result.revision;
      }
      await watched.until(() => watched.values.length === wanted.length);
      if (i % 2 === 0) await server.restart();
      else server.signal("SIGCONT");
    }
    assert.deepEqual([watched.values, watched.lost], [wanted, 0]);
    watch.close();
    await metadata.close();
  } finally {
    for (const server of servers) await server.stop();
  }
});

interop("etcd: over TLS, both sides prove themselves", ["etcd", "openssl"], async () => {
  // Lost without it: CHAP secrets for whoever is on the way, or a stranger who changes routes.
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-tls-" });
  const openssl = async (...args: string[]) => {
    const { success, stderr } = await new Deno.Command("openssl", { args, cwd: directory, stdout: "null" })
      .output();
    assert.ok(success, new TextDecoder().decode(stderr));
  };
  const made = async (name: string, signer: string) => {
    const key = [
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-keyout",
      `${name}.key`,
    ];
    const what = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
    const by = signer === name ? [] : ["-CA", `${signer}.pem`, "-CAkey", `${signer}.key`];
    const usage = signer === name ? [] : ["-addext", "basicConstraints=critical,CA:FALSE"];
    await openssl("req", "-x509", ...key, "-out", `${name}.pem`, ...what, ...by, ...usage);
  };
  const file = (name: string) => `${directory}/${name}`;
  const pem = (name: string) => Deno.readTextFileSync(file(name));
  await made("ca", "ca");
  await made("server", "ca");
  await made("member", "ca");
  await made("stranger", "stranger");
  const [server] = await EtcdServer.start(1, {
    ca: file("ca.pem"),
    cert: file("server.pem"),
    key: file("server.key"),
  });
  try {
    const tls = { ca: pem("ca.pem"), cert: pem("member.pem"), key: pem("member.key") };
    const metadata = await open([server!.url], { tls });
    const { revision } = await metadata.commit([], [put("k", "1")]);
    const watched = new Watched();
    const watch = metadata.watch("", revision, watched.seen, watched.onLost);
    await metadata.commit([], [put("k", "2")]);
    await watched.until(() => watched.values.at(-1) === "2");
    watch.close();
    await metadata.close();
    const times = { callMs: 1_000 };
    await assert.rejects(open([server!.url], { tls: { ...tls, ca: null }, times }), /check metadata_tls/);
    await assert.rejects(
      open([server!.url], { tls: { ...tls, cert: null, key: null }, times }),
      /check metadata_tls/,
    );
    const stranger = { ...tls, cert: pem("stranger.pem"), key: pem("stranger.key") };
    await assert.rejects(open([server!.url], { tls: stranger, times }), /check metadata_tls/);
  } finally {
    await server!.stop();
    await Deno.remove(directory, { recursive: true });
  }
});
