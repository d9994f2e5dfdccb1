// Without this, a connection that another machine sends on for a while may lose, invent or repeat a byte.

import { strict as assert } from "node:assert";
import type { LendResult, TcpState } from "../../lib/base/flow.ts";
import { limits } from "../../lib/base/limits.ts";
import { FlowRoutes } from "../../lib/io/native/flow_routes.ts";
import { FlowRules } from "../../lib/io/native/flow_rules.ts";
import { flowProblems, FlowTools } from "../../lib/io/native/flow_tools.ts";
import { type Libc, libc } from "../../lib/io/native/libc.ts";
import { RouteLookup } from "../../lib/io/native/route_lookup.ts";
import { closeSilently, restoreWhole } from "../../lib/io/native/tcp_repair.ts";
import { state } from "../shortcut/tcp_state.ts";
import { type Machine, port, Scene, streamBytes } from "./flow_scene.ts";
import { Namespaces, namespacesMissing } from "./namespaces.ts";

const missing = namespacesMissing();

/** `sequence`: the first sequence number of both ends; null: as the kernels like. */
function scene(name: string, fn: (scene: Scene) => Promise<void>, sequence: number | null = null): void {
  Deno.test({ name, ignore: missing !== null, sanitizeResources: false, sanitizeOps: false }, async () => {
    const made = await Scene.make(sequence);
    try {
      await fn(made);
    } finally {
      await made.stop();
    }
  });
}
if (missing !== null) console.log(`left out: ${missing}`);

scene("a home answers on the entry's connection, in turn with it", async (s) => {
  // Lost without it: the short cut itself.
  assert.deepEqual(s.machines.within("home", () => flowProblems()), []);
  const capture = new Deno.Command("ip", {
    // deno-fmt-ignore
    args: ["netns", "exec", s.machines.of("client"), "tcpdump", "--immediate-mode", "-l", "-n", "-e", "-i", "eth0", "tcp", "and", "greater", "1000"],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const captured = capture.output();
  await new Promise((resolve) => setTimeout(resolve, 500));
  for (let i = 0; i < 150; i++) {
    s.answer(i % 3 === 0 ? 100_000 : 48);
    s.request(48);
    await s.shortCut([512, 4144, 65_584, 262_192][i % 4]!);
  }
  s.answer(5_000);
  await s.settled();
  await s.until(() => s.requests === s.asked, "every request has come");
  await new Promise((resolve) => setTimeout(resolve, 300));
  capture.kill("SIGKILL");
  const lines = new TextDecoder().decode((await captured).stdout).split("\n");
  const fromEntry = lines.filter((line) => line.includes(` ${s.machines.address("entry")}.${port} > `));
  const by = (name: string) => {
    const hardware = `${s.machines.link(name)} >`;
    return fromEntry.filter((line) => line.includes(hardware)).length;
  };
  const home = by("home"), entry = by("entry");
  assert.ok(home > 300, `${home} segments with the home's hardware address and the entry's IP address`);
  assert.equal(home + entry, fromEntry.length);
  console.log(`${home} large segments came from the home's interface, ${entry} from the entry's`);
});

scene("1 % of the packets are lost both ways: every byte comes once", async (s) => {
  // Lost without it: retransmission, which changes hands with the connection.
  const rules = `table inet loss {
    chain in { type filter hook input priority -400; numgen random mod 1000 < 10 drop; }
  }`;
  const file = Deno.makeTempFileSync();
  Deno.writeTextFileSync(file, rules);
  for (const machine of ["client", "home"]) s.machines.exec(machine, "nft", "-f", file);
  Deno.removeSync(file);
  for (let i = 0; i < 60; i++) {
    s.answer(48);
    s.request(48);
    await s.shortCut(65_584);
  }
  await s.settled();
});

scene(
  "the first packets of a home are lost: it sends them again before a kernel's timer rings",
  async (s) => {
    // Lost without it: the second that a kernel waits that has measured nothing, for all that the connection has to send.
    const file = Deno.makeTempFileSync();
    Deno.writeTextFileSync(
      file,
      `table inet loss {
      chain in { type filter hook input priority -400; tcp sport ${port} numgen inc mod 1000000 < 2 drop; }
    }`,
    );
    const sizes = [1024, 12_000, 262_192];
    for (const bytes of sizes) {
      s.machines.exec("client", "nft", "-f", file); // the first flight, and what the client is asked with
      await s.shortCut(bytes);
      await s.settled();
      s.machines.exec("client", "nft", "delete", "table", "inet", "loss");
    }
    Deno.removeSync(file);
    const rang = s.timersRang("home") + s.timersRang("entry");
    assert.ok(rang < sizes.length, `the kernels' timers rang ${rang} times`); // a process that does not run for 1 s is late
  },
);

scene("the entry gives up while lent: nothing wrong, and the client is told", async (s) => {
  // Lost without it: a connection that hangs, or goes on with a hole.
  await s.shortCut(65_584);
  const borrowed = await s.lent();
  const data = streamBytes(s.sent, 4 * 1024 * 1024);
  borrowed.send([data], () => {});
  await s.until(() => s.received > 65_584 + 100_000, "a part of the answer");
  s.entry.abort();
  await s.until(() => s.clientClosed !== "", "the client is told");
  assert.equal(s.wrongAt, -1);
  borrowed.abort();
});

scene(
  "the home dies while it sends: the entry sends nothing of its own, and the client is told",
  async (s) => {
    // Lost without it: bytes that the home has sent already, with others behind them.
    const borrowed = await s.lent();
    const data = streamBytes(s.sent, 4 * 1024 * 1024);
    // There and then: a millisecond later all of it may be at the client.
    s.onReceived = () => {
      if (s.received < 100_000) return;
      s.onReceived = () => {};
      s.answer(1000); // waits
      borrowed.abort();
    };
    borrowed.send([data], () => assert.fail("it was aborted"));
    await s.until(() => s.clientClosed !== "", "the client is told");
    assert.equal(s.wrongAt, -1);
    assert.ok(s.received < data.length);
  },
);

scene(
  "somebody flushes the packet filter while lent, and the entry is gone: nothing wrong is sent",
  async (s) => {
    // Lost without it: what an orphaned socket of the entry would send on its own.
    const borrowed = await s.lent();
    const data = streamBytes(s.sent, 1024 * 1024);
    borrowed.send([data], () => {});
    await s.until(() => s.received > 50_000, "a part of the answer");
    s.machines.exec("entry", "nft", "flush", "ruleset");
    assert.match(
      s.machines.exec("entry", "nft", "list", "tables"),
      /plimsoll_/,
      "the table is the process's own",
    );
    s.entryTools.rules.close(); // as the end of the process
    s.entry.abort();
    await s.until(() => s.clientClosed !== "", "the client is told");
    assert.equal(s.wrongAt, -1);
    borrowed.abort();
  },
);

scene("the client closes while lent: the borrower ends", async (s) => {
  // Lost without it: a borrower that sends to nobody for ever.
  const borrowed = await s.lent();
  s.client.abort();
  const state = await new Promise<TcpState | null>((done) =>
    borrowed.send([streamBytes(s.sent, 1024 * 1024)], done)
  );
  assert.equal(state, null);
});

scene("a client that hears nothing while lent: the borrower ends when its time is over", async (s) => {
  // Lost without it: a borrower that goes on to send when its lender has given the connection up.
  const timeMs = 400;
  const borrowed = await s.lent(timeMs);
  const begun = performance.now();
  s.machines.plug("client", 0, "down");
  const state = await new Promise<TcpState | null>((done) =>
    borrowed.send([streamBytes(s.sent, 100_000)], done)
  );
  assert.equal(state, null);
  assert.ok(performance.now() - begun >= timeMs - 50, "too early"); // it began before the call was back
});

scene("a state that does not follow from what was lent is not taken", async (s) => {
  // Lost without it: sequence numbers that nobody has used.
  const result = await s.lend();
  assert.equal(result.kind, "lent");
  const { state } = result as { state: TcpState };
  const flow = s.entry.flow!;
  assert.equal(
    flow.takeBack({ ...state, sendNext: (state.sendNext + 100) >>> 0 }),
    false,
    "bytes are missing",
  );
  const back = (state.sendNext - 1) >>> 0;
  assert.equal(flow.takeBack({ ...state, sendNext: back, sendUnacknowledged: back }), false, "from before");
  assert.equal(flow.takeBack(state), true, "unused");
  s.answer(10_000);
  await s.settled();
});

/** While it works, the kernel refuses what `refuses` says of setsockopt(). */
function refusing(refuses: (level: number, option: number) => boolean): Disposable {
  const calls = libc()! as { -readonly [K in keyof Libc]: Libc[K] };
  const { setsockopt } = calls;
  calls.setsockopt = (fd, level, option, value, length) =>
    refuses(level, option) ? -1 : setsockopt(fd, level, option, value, length);
  return { [Symbol.dispose]: () => void (calls.setsockopt = setsockopt) };
}
const linger = (level: number, option: number) => level === 1 && option === 13;
const repair = (level: number, option: number) => level === 6 && option === 19;

scene("a lend that cannot be finished is undone", async (s) => {
  // Lost without it: a connection that says nothing any more, and whose client is not told.
  {
    let times = 0;
    using _ = refusing((level, option) => linger(level, option) && times++ === 0);
    assert.equal((await s.lend()).kind, "refused");
  }
  s.answer(10_000);
  await s.settled();
  await s.shortCut(65_584);
  await s.settled();
});

for (const way of ["lent", "moved"]) {
  scene(`a connection is half ${way}, and the rules cannot be taken away: the client is told`, async (s) => {
    // Lost without it: the same.
    await s.shortCut(65_584);
    const unable = () => {
      throw new Error("no memory");
    };
    const { rules } = s.entryTools;
    const { end, endMove } = rules;
    Object.assign(rules, { end: unable, endMove: unable });
    let result;
    if (way === "lent") {
      using _ = refusing(linger);
      result = await s.lend();
    } else {
      using _ = refusing(repair);
      result = await new Promise<LendResult>((resolve) =>
        s.entry.movable!.depart(s.machines.address("home"), resolve)
      );
    }
    assert.equal(result.kind, "refused");
    Object.assign(rules, { end, endMove });
    s.client.send(new Uint8Array(48), 0, 48, null); // meets a closed port, once the rules have gone with the process
    s.entryTools.rules.close();
    await s.until(() => s.clientClosed !== "", "the client is told");
  });
}

Deno.test({ name: "the clock of timestamps goes on as it went", ignore: missing !== null }, () => {
  // Lost without it: what a lender with an older kernel sends after a short cut, by timestamps far behind the borrower's (PAWS).
  using machines = new Namespaces(["home"]);
  const options = machines.within("home", () => {
    const client = { hostname: "10.98.0.9", port: 40_000 };
    const portal = { hostname: machines.address("home"), port };
    const fd = restoreWhole({ ...state, client, portal, timestamp: 1001 });
    const info = new Uint8Array(256);
    libc()!.getsockopt(fd, 6, 11, info, new Uint32Array([info.length])); // TCP_INFO
    closeSilently(fd);
    return info[5]!;
  });
  assert.equal(options & 1, 1, "with timestamps");
  assert.equal(options & 64, 0, "of microseconds");
});

scene("what a crashed process has left is taken away by the next one", async (s) => {
  // Lost without it: routing rules that pile up.
  const mark = s.machines.within("home", () => {
    const rules = new FlowRules(4711);
    new FlowRoutes(rules.mark);
    rules.close(); // the kernel does as much when a process dies
    return rules.mark.toString(16);
  });
  assert.match(s.machines.exec("home", "ip", "rule"), new RegExp(mark));
  s.machines.within("home", () => new FlowTools(s.rig.loop).close());
  assert.doesNotMatch(s.machines.exec("home", "ip", "rule"), new RegExp(mark));
  await Promise.resolve();
});

Deno.test({
  name: "rules of routing: after a process with the same number, and where they cannot all be made",
  ignore: missing !== null,
}, () => {
  // Lost without it: short cuts in a container, whose processes have the same number at every start; and what a failed start leaves.
  using machines = new Namespaces(["home"]);
  const rules = () => machines.exec("home", "ip", "rule");
  machines.within("home", () => {
    const before = new FlowRules(4711);
    new FlowRoutes(before.mark);
    before.close(); // killed
    const after = new FlowRules(4711);
    assert.equal(after.mark, before.mark);
    const routes = new FlowRoutes(after.mark);
    assert.match(rules(), new RegExp(after.mark.toString(16)));
    routes.close();
    machines.exec("home", "ip", "link", "set", "lo", "down", "name", "other");
    assert.throws(() => new FlowRoutes(after.mark), /Cannot change routes/);
    assert.doesNotMatch(rules(), new RegExp(after.mark.toString(16)));
    after.close();
  });
});

Deno.test(
  { name: "neighbours are those whom packets reach without a gateway", ignore: missing !== null },
  () => {
    // Lost without it: connections that are lent to a machine behind a router, which drops what is sent it (time to live 0).
    using machines = new Namespaces(["home"]);
    const ip = (...args: string[]) => void machines.exec("home", "ip", ...args);
    ip("-6", "address", "add", "fd98::1/64", "dev", "eth0", "nodad");
    ip("route", "add", "192.0.2.0/25", "via", "10.98.0.9");
    ip("route", "add", "192.0.2.128/25", "via", "inet6", "fd98::9", "dev", "eth0");
    ip("route", "add", "unreachable", "198.51.100.0/25");
    ip("route", "add", "blackhole", "198.51.100.128/25");
    machines.within("home", () => {
      const routes = new RouteLookup();
      const kind = (
        ...address: number[]
      ) => [routes.isNeighbour(Uint8Array.from(address)), routes.isLocal(Uint8Array.from(address))];
      assert.deepEqual(kind(10, 98, 0, 9), [true, false]);
      assert.deepEqual(kind(10, 98, 0, 1), [false, true]);
      assert.deepEqual(kind(10, 98, 0, 255), [false, false], "everybody");
      assert.deepEqual(kind(192, 0, 2, 1), [false, false], "behind a router");
      assert.deepEqual(kind(192, 0, 2, 129), [false, false], "behind a router that has an IPv6 address");
      assert.deepEqual(kind(198, 51, 100, 1), [false, false], "unreachable");
      assert.deepEqual(kind(198, 51, 100, 129), [false, false], "a black hole");
      assert.deepEqual(kind(203, 0, 113, 1), [false, false], "no way");
      routes.close();
    });
  },
);

scene("the whole connection goes round three machines while both sides send", async (s) => {
  // Lost without it: a byte of either direction between two owners.
  const round: Machine[] = ["home", "other", "entry", "other", "home", "entry"];
  const times: number[] = [];
  for (let i = 0; i < 60; i++) {
    s.request(i % 4 === 0 ? 200_000 : 48);
    s.answer(i % 3 === 0 ? 100_000 : 48);
    times.push(await s.move(round[i % round.length]!));
    s.answer(1_000);
    s.request(48);
    if (i % 2 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await s.settled();
  await s.until(() => s.requests === s.asked, `${s.requests} of ${s.asked} bytes of requests`);
  assert.equal(s.requestsWrong, 0);
  times.sort((a, b) => a - b);
  console.log(`stopped for ${times[30]!.toFixed(2)} ms (p50), ${times[59]!.toFixed(2)} ms (max)`);
});

for (const border of [0x8000_0000, 0x1_0000_0000]) {
  scene(`sequence numbers pass ${border.toString(16)} while the connection changes hands`, async (s) => {
    // Lost without it: a connection that breaks after 2 or 4 GiB, since something counts like JavaScript, not modulo 2^32.
    const round: Machine[] = ["home", "other", "entry"];
    for (let i = 0; i < 60; i++) {
      s.request(5_000);
      s.answer(1_000);
      if (s.owner === "entry") {
        s.request(48);
        await s.shortCut([512, 12_000][i % 2]!);
      }
      if (i % 2 === 0) await s.move(round[(i / 2) % 3]!);
    }
    await s.settled();
    await s.until(() => s.requests === s.asked, `${s.requests} of ${s.asked} bytes of requests`);
    assert.ok(s.asked > 250_000 && s.sent > 150_000, `${s.asked}, ${s.sent} bytes: the border is not passed`);
  }, border - 120_000);
}

scene("a connection that was stopped goes on where it was", async (s) => {
  // Lost without it: the way back when the other machine does not take it.
  for (let i = 0; i < 10; i++) {
    s.request(100_000);
    const result = await new Promise<LendResult>((resolve) =>
      s.entry.movable!.depart(s.machines.address("home"), resolve)
    );
    assert.equal(result.kind, "lent", JSON.stringify(result));
    s.request(48);
    assert.ok(s.entry.movable!.stay());
    s.answer(5_000);
  }
  await s.settled();
  await s.until(() => s.requests === s.asked, `${s.requests} of ${s.asked} bytes of requests`);
});

scene("the machine with the portal dies after the connection has moved: the client is told", async (s) => {
  // Lost without it: a client that waits for ever for packets that go nowhere.
  await s.move("home");
  s.answer(1_000);
  await s.settled();
  s.entryTools.rules.close(); // as the end of the process
  s.answer(1_000); // what the client says to it meets a closed port
  await s.until(() => s.clientClosed !== "", "the client is told");
  assert.equal(s.wrongAt, -1);
});

scene("the new owner dies: the client is told at once", async (s) => {
  // Lost without it: the same.
  await s.move("home");
  s.request(48);
  s.answer(100_000);
  await s.settled();
  s.entry.abort(); // as the end of the process: see restoreWhole
  await s.until(() => s.clientClosed !== "", "the client is told", 2_000);
  assert.equal(s.wrongAt, -1);
});

scene("4 % of the packets are lost while the whole connection goes round", async (s) => {
  // Lost without it: what is sent again while the connection changes hands.
  const rules = `table inet loss {
    chain in { type filter hook input priority -400; numgen random mod 1000 < 40 counter drop; }
  }`;
  const file = Deno.makeTempFileSync();
  Deno.writeTextFileSync(file, rules);
  for (const machine of ["client", "home", "other"]) s.machines.exec(machine, "nft", "-f", file);
  Deno.removeSync(file);
  const round: Machine[] = ["home", "other", "entry"];
  let moved = 0;
  for (let i = 0; i < 150 && moved < 40; i++) {
    s.request(i % 4 === 0 ? 200_000 : 48);
    s.answer(i % 3 === 0 ? 100_000 : 48);
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (await s.tryMove(round[moved % 3]!)) moved++;
  }
  await s.settled();
  await s.until(() => s.requests === s.asked, `${s.requests} of ${s.asked} bytes of requests`);
  assert.equal(moved, 40, "what was sent does not leave");
  const lost = ["client", "home", "other"].map((machine) =>
    Number(/packets (\d+)/.exec(s.machines.exec(machine, "nft", "list", "table", "inet", "loss"))![1])
  );
  console.log(`packets lost at client, home and other: ${lost.join(", ")}`);
  assert.ok(lost.some((packets) => packets > 0));
});

scene(
  "the entry's process is started anew while both sides send: its packets go on to the owner",
  async (s) => {
    // Lost without it: every client of a member whose program is replaced.
    await s.move("home");
    const { client, portal, owner } = s.moved;
    let going = true;
    const traffic = (async () => {
      for (let i = 0; going; i++) {
        s.request(i % 10 === 0 ? 100_000 : 48);
        s.answer(i % 7 === 0 ? 100_000 : 48);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();
    for (let i = 0; i < 20; i++) {
      const before = s.requests;
      s.keep([{ client, portal, owner }]);
      s.startEntryAnew();
      await s.until(() => s.requests > before + 500, "requests while only the kept table steers");
      s.entryTools.steer(client, portal, owner);
      s.keepNoMore();
    }
    going = false;
    await traffic;
    await s.settled();
    await s.until(() => s.requests === s.asked, `${s.requests} of ${s.asked} bytes of requests`);
    assert.doesNotMatch(s.machines.exec("entry", "nft", "list", "tables"), /kept/);
    await s.move("other"); // as ever
    s.answer(1000);
    s.request(48);
    await s.settled();
  },
);

scene("what the next process does not confirm, or does not come for, is reset", async (s) => {
  // Lost without it: clients that wait for ever, and tables that stay for ever.
  await s.move("home");
  s.keep([s.moved], 1_500);
  s.startEntryAnew();
  s.answer(1_000);
  s.request(48);
  await s.settled();
  assert.equal(s.clientClosed, "", "it is kept for a while");
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  s.request(48);
  await s.until(() => s.clientClosed !== "", "the client is told when the time is over");
  assert.match(s.machines.exec("entry", "nft", "list", "tables"), /plimsoll_kept_member/);
  s.keep([]); // the next one takes what is left
  s.keepNoMore();
  s.keepNoMore();
  assert.doesNotMatch(s.machines.exec("entry", "nft", "list", "tables"), /kept/);
});

scene("a kept table that is taken away without a new rule: the client is reset", async (s) => {
  // Lost without it: the same, for a session that has ended while the process was away.
  await s.move("home");
  s.keep([s.moved]);
  s.startEntryAnew();
  s.request(48);
  await s.settled();
  s.keepNoMore();
  s.request(48);
  await s.until(() => s.clientClosed !== "", "the client is told");
  assert.equal(s.wrongAt, -1);
});

scene("as many connections are kept as a member may have", async (s) => {
  // Lost without it: a restart that cannot be had just where most depends on it.
  const flows = Array.from({ length: limits.connectionsMax }, (_, i) => ({
    client: { hostname: s.machines.address("client"), port: 10_000 + i },
    portal: { hostname: s.machines.address("entry"), port },
    owner: s.machines.address("home"),
  }));
  s.keep(flows);
  const listed = s.machines.exec("entry", "nft", "list", "table", "ip", "plimsoll_kept_member");
  assert.equal(listed.split("expires").length - 1, flows.length);
  assert.throws(() => s.keep([...flows, { ...flows[0]!, client: { hostname: "10.0.0.1", port: 1 } }]));
  assert.doesNotMatch(s.machines.exec("entry", "nft", "list", "tables"), /kept/, "all or nothing");
  await Promise.resolve();
});
