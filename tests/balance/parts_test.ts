// Without these, clients could be sent where they cannot get, by reports that lie or that nobody can read alike.

import { strict as assert } from "node:assert";
import { Balancer, takes } from "../../lib/balance/balancer.ts";
import { LoadBoard } from "../../lib/balance/board.ts";
import { AccessHistory } from "../../lib/balance/history.ts";
import { decodeIntent, encodeIntent, type Intent, Intents } from "../../lib/balance/intents.ts";
import { placeLogin } from "../../lib/balance/placement.ts";
import { portalNear, reachablePortals } from "../../lib/balance/reach.ts";
import { decodeReport, encodeReport, type LoadReport } from "../../lib/balance/report_codec.ts";
import { clientKey, type LoginPolicy } from "../../lib/balance/view.ts";
import { limits } from "../../lib/base/limits.ts";
import { cpuMsOf } from "../../lib/io/machine.ts";
import { client, connection, group, member, settings } from "./scene.ts";

const report: LoadReport = {
  ...member(0x0102, 0x11223344, {
    draining: true,
    connections: 3,
    sessions: 2,
    expected: 1,
    commandsPerS: 0x01020304,
    readBytesPerS: 0x01_0000_0002,
    writtenBytesPerS: 7,
    cpu: 0.5,
    queue: 1.5,
    latencyUs: 250,
    accessUs: 0x00112233,
    accessesPerS: 0x0000aabb,
    linkMbps: [10_000, 0],
    clients: [client("0123456789abcdef", {
      image: 0x0a0b0c0d0e0f,
      sessions: 2,
      work: 9,
      served: new Map([[0x0102, 1]]),
    })],
  }).load,
  work: 0x00223344,
  commandsPerS: 0x00020304,
  sequence: 5,
};

Deno.test("a load report's bytes are those of the document", () => {
  // Typed by hand from docs/vendor-commands.md.
  const expected = "0101" + "0102" + "00000005" + "0003" + "0002" + "0001" + "01f4" + "00223344" +
    "00020304" +
    "0000000100000002" + "0000000000000007" + "000005dc" + "000000fa" + "0002" + "0001" + "00112233" +
    "0000aabb" + "00".repeat(4) +
    "00002710" + "00000000" +
    "0123456789abcdef" + "0a0b0c0d0e0f" + "0002" + "00000009" + "01" + "000000" + "0102ffff" +
    "00".repeat(28);
  assert.equal(encodeReport(report).toHex(), expected);
  const dirty = new Uint8Array(expected.length / 2 + 9).fill(0xa5);
  dirty.set(Uint8Array.fromHex(expected), 9);
  assert.deepEqual(decodeReport(dirty.subarray(9)), report);
});

Deno.test("a report that is cut, made up or too large is refused; one that lies is bounded", () => {
  const bytes = encodeReport(report);
  for (let length = 0; length < bytes.length; length++) {
    assert.equal(decodeReport(bytes.subarray(0, length)), null);
  }
  assert.equal(decodeReport(Uint8Array.of(...bytes, 0)), null);
  const otherVersion = bytes.slice();
  otherVersion[0] = 2;
  assert.equal(decodeReport(otherVersion), null);
  let seed = 1;
  for (let i = 0; i < 2000; i++) {
    const garbage = bytes.slice().map((b) =>
      (seed = (seed * 1103515245 + 12345) >>> 0) % 4 === 0 ? seed >>> 24 : b
    );
    garbage[0] = 1;
    garbage.set([0, 2, 0, 1], 48);
    const decoded = decodeReport(garbage);
    if (decoded === null) continue;
    assert.ok(decoded.work <= 20_000_000 && decoded.sessions <= limits.sessionsMax && decoded.cpu <= 1);
    assert.ok(decoded.expected <= limits.intentsMax && decoded.readBytesPerS <= 1e12);
    for (const { served } of decoded.clients) {
      assert.ok([...served.values()].reduce((sum, share) => sum + share, 0) <= 1.0001);
    }
  }
  const absurd = encodeReport({ ...report, work: Infinity, queue: NaN, cpu: -3 });
  assert.deepEqual([decodeReport(absurd)!.work, decodeReport(absurd)!.queue, decodeReport(absurd)!.cpu], [
    0,
    0,
    0,
  ]);
});

Deno.test("reports age out, old ones are passed over, and a new process begins anew", () => {
  const board = new LoadBoard(5_000);
  const at = (sequence: number) => ({ ...report, sequence });
  assert.ok(board.tell(at(5), "run 1", 0));
  assert.ok(!board.tell(at(4), "run 1", 100));
  assert.ok(!board.tell(at(5), "run 1", 100));
  board.sent(report.tag);
  assert.equal(board.fresh(report.tag, 4_999)!.expected, 2);
  assert.equal(board.fresh(report.tag, 5_001), null);
  assert.ok(board.tell(at(1), "run 2", 6_000));
  assert.equal(board.fresh(report.tag, 6_000)!.expected, 1);
  assert.ok(board.tell(at(0xffff_ffff), "run 3", 7_000) && board.tell(at(0), "run 3", 8_000), "it wraps");
});

const intent: Intent = {
  initiator: "iqn.2026-11.net.plimsoll.test:host",
  isid: 0x80_0000_000007,
  image: 9,
  purpose: "operator",
  to: 2,
  timeMs: 33_000,
  work: 100,
  senderWorkAfter: 50,
  moves: 1,
};

Deno.test("an intent's bytes are those of the document; others are refused", () => {
  const name = new TextEncoder().encode(intent.initiator).toHex();
  const expected = "0102" + "0002" + "800000000007" + "000000000009" + "000080e8" + "00000064" + "00000032" +
    "01" + "22" + "0000" + name;
  assert.equal(encodeIntent(intent).toHex(), expected);
  assert.deepEqual(decodeIntent(Uint8Array.fromHex(expected)), intent);
  for (let n = 0; n < expected.length / 2; n++) {
    assert.equal(decodeIntent(Uint8Array.fromHex(expected.slice(0, 2 * n))), null);
  }
  assert.equal(decodeIntent(Uint8Array.fromHex("01ff" + expected.slice(4))), null);
  assert.equal(
    decodeIntent(encodeIntent({ ...intent, timeMs: 0xffff_ffff }))!.timeMs,
    limits.intentTimeMsMax,
  );
});

Deno.test("who is expected here stays, who comes back is kept, and all is forgotten in time", () => {
  const intents = new Intents();
  intents.note(intent, 0);
  assert.equal(intents.atLogin(intent, 3, 10), intent);
  assert.equal(intents.atLogin(intent, 3, 20), "here", "it could not get there");
  const destination = new Intents();
  destination.note(intent, 0);
  assert.deepEqual(destination.expected(2, 10), { count: 1, work: 100 });
  assert.equal(
    destination.atLogin({ ...intent, isid: 99 }, 2, 10),
    "here",
    "with an ISID of its own for each try",
  );
  assert.deepEqual(destination.expected(2, 10), { count: 0, work: 0 });
  assert.equal(destination.atLogin(intent, 2, 33_000), null);
  // Two members have decided at once: the newer one counts, and there is one.
  intents.note({ ...intent, to: 1 }, 30);
  assert.equal((intents.atLogin(intent, 3, 40) as Intent).to, 1);
  for (let i = 0; i < limits.intentsMax + 10; i++) intents.note({ ...intent, isid: i }, 50);
  assert.equal(intents.find({ ...intent, isid: 0 }, 50), null, "bounded");
});

Deno.test("two members that decide at once cannot fill a third", () => {
  const own = member(3, 10);
  const view = [own, member(1, 200), member(2, 200)];
  assert.ok(takes(own, view, 100, 100, settings));
  const charged = member(3, 110); // with what the first one brings
  assert.ok(!takes(charged, [charged, member(1, 100), member(2, 200)], 100, 100, settings));
  assert.ok(takes(member(3, 0), [member(3, 0), member(1, 3)], 5, 0, settings), "too little to matter");
});

Deno.test("history fades, over minutes and over hours, and is bounded", () => {
  const history = new AccessHistory();
  history.note("c", 1, new Map([[1, 1000]]), 0);
  assert.deepEqual([...history.recent("c", 1)], [[1, 1]]);
  for (let s = 600; s < 1200; s += 60) history.note("c", 1, new Map([[2, 100]]), s * 1000);
  assert.ok(history.recent("c", 1).get(2)! > 0.9, "minutes: it uses beta now");
  assert.ok(history.long("c", 1).get(1)! > 0.45, "hours: its habit is alpha");
  for (let i = 0; i < limits.clientHistoriesMax; i++) history.note(`x${i}`, 1, new Map([[1, 1]]), 2e6);
  assert.equal(history.size, limits.clientHistoriesMax);
  assert.equal(history.recent("c", 1).size, 0, "the longest unseen is forgotten");
});

Deno.test("clients of the group's address are sent on from the member's portal in its network", () => {
  const at = (hostname: string) => ({ hostname, port: 3260 });
  const own = [at("10.0.1.1"), at("10.0.2.1"), at("fd00::1")];
  const near = (hostname: string, bits: number | null) =>
    portalNear(at(hostname), own, () => bits)?.hostname ?? null;
  assert.equal(near("10.0.2.100", null), "10.0.2.1", "/24 where the prefix is not known");
  assert.equal(near("10.0.2.100", 16), "10.0.1.1");
  assert.equal(near("10.0.3.100", 24), null);
  assert.equal(near("fd00::100", 64), "fd00::1");
  assert.equal(near("fd00:0:0:1::100", 64), null);
});

Deno.test("only portals that a client can be expected to reach", () => {
  const at = (hostname: string, port = 3260) => ({ hostname, port });
  const hosts = (list: readonly { hostname: string }[]) => list.map(({ hostname }) => hostname);
  const own = [at("10.0.1.1"), at("10.0.2.1")];
  const theirs = [at("10.0.1.2"), at("10.0.2.2"), at("fd00::2"), at("127.0.0.1")];
  assert.deepEqual(hosts(reachablePortals(own[0]!, own, theirs, null)), ["10.0.1.2"]);
  assert.deepEqual(hosts(reachablePortals(own[0]!, own, theirs, 16)), ["10.0.1.2", "10.0.2.2"]);
  assert.deepEqual(hosts(reachablePortals(at("127.0.0.1"), own, theirs, 8)), ["127.0.0.1"]);
  assert.deepEqual(hosts(reachablePortals(at("fd00::1"), own, theirs, null)), ["fd00::2"]);
  assert.deepEqual(reachablePortals(at("fd00:0:0:1::1"), own, theirs, null), [], "another subnet");
  assert.deepEqual(reachablePortals(at("fe80::1"), own, theirs, null), [], "link-local stays on its link");
  assert.deepEqual(reachablePortals(at("::1"), own, theirs, null), []);
  const routed = [at("192.168.1.2"), at("192.168.2.2")];
  assert.deepEqual(
    hosts(reachablePortals(own[1]!, own, routed, null)),
    ["192.168.2.2"],
    "the same place of the list",
  );
  assert.deepEqual(
    reachablePortals(own[1]!, own, routed.slice(1), null),
    [],
    "lists of other lengths say nothing",
  );
  assert.deepEqual(hosts(reachablePortals(at("::ffff:10.0.1.1"), own, [at("::ffff:10.0.1.9")], 120)), [
    "::ffff:10.0.1.9",
  ]);
});

Deno.test("placement: affinity before load, room before affinity, another path's member last", () => {
  const arrival = {
    client: "c1",
    image: 1,
    history: new Map<number, number>(),
    pages: new Map<number, number>(),
    reachable: new Set([2, 3]),
  };
  const place = (
    loads: [number, number, number],
    change: Partial<typeof arrival> = {},
    policy: LoginPolicy = "affinity",
    clients: [number, string][] = [],
  ) =>
    placeLogin(
      group(
        loads.map((work, i) =>
          member(i + 1, work, {
            clients: clients.filter(([tag]) => tag === i + 1).map(([, name]) => client(name)),
          })
        ),
        [],
        { policy },
      ),
      { ...arrival, ...change },
      settings,
      0,
    )?.tag ?? 1;
  assert.equal(place([10, 10, 10]), 1, "nothing speaks for another");
  assert.equal(place([10, 10, 10], { pages: new Map([[3, 0.6], [1, 0.4]]) }), 3);
  assert.equal(place([10, 10, 10], { history: new Map([[2, 0.9]]), pages: new Map([[3, 0.6]]) }), 2);
  assert.equal(place([100, 400, 100], { history: new Map([[2, 0.9]]) }), 1, "beta is busy");
  assert.equal(place([400, 100, 90]), 2, "alike within the band: the lowest tag");
  assert.equal(place([100, 50, 10], {}, "least-loaded"), 3);
  assert.equal(place([100, 50, 10], { reachable: new Set([2]) }, "least-loaded"), 2);
  assert.equal(place([100, 50, 10], { reachable: new Set() }, "least-loaded"), 1);
  assert.equal(place([100, 50, 10], {}, "none"), 1);
  assert.equal(place([10, 50, 50], {}, "least-loaded", [[1, "c1"]]), 2, "its other path is here");
  assert.equal(place([10, 50, 50], {}, "least-loaded", [[1, "c1"], [2, "c1"], [3, "c1"]]), 1, "all have one");
});

Deno.test("a move waits until an imbalance has lasted, and is not asked of who has refused", () => {
  const balancer = new Balancer();
  const view = group([member(1, 300), member(2, 10), member(3, 100)], [connection(60)], {
    policy: "least-loaded",
  });
  assert.equal(balancer.next(view, settings, 0, 0), null);
  assert.equal(balancer.next(view, settings, 4_900, 0), null);
  const calm = group([member(1, 100), member(2, 100), member(3, 100)], view.connections);
  assert.equal(balancer.next(calm, settings, 4_950, 0), null);
  assert.equal(balancer.next(view, settings, 5_000, 0), null, "it swings: the time begins anew");
  assert.equal(balancer.next(view, settings, 9_900, 0), null);
  assert.equal(balancer.next(view, settings, 10_000, 2), null, "as many are under way as may be");
  const move = balancer.next(view, settings, 10_000, 0)!;
  assert.equal(move.to.name, "beta");
  balancer.refused(move, 10_000);
  assert.equal(balancer.next(view, settings, 10_100, 0)!.to.name, "gamma");
  assert.equal(balancer.next({ ...view, policy: "none" }, settings, 30_000, 0), null);
});

Deno.test("affinity alone moves a connection that has lasted as a stranger, under the policy affinity only", () => {
  const members = [member(1, 30), member(2, 0), member(3, 30)];
  const one = connection(30, { recent: new Map([[2, 1]]), history: new Map([[2, 1]]) });
  for (const [policy, expected] of [["affinity", "beta"], ["least-loaded", undefined]] as const) {
    const balancer = new Balancer();
    const view = group(members, [one], { policy });
    assert.equal(balancer.next(view, { ...settings, deadBand: 1 }, 0, 0), null);
    assert.equal(balancer.next(view, { ...settings, deadBand: 1 }, 5_000, 0)?.to.name, expected);
  }
});

Deno.test("names of clients and CPU time are read right", () => {
  assert.equal(clientKey("iqn.2026-11.net.plimsoll.test:host").length, 16);
  assert.equal(cpuMsOf("12 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20"), 1750);
});
