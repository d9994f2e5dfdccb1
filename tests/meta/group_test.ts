// Without these, members could share a tag or a placement id, or a group could be locked by its own secret.

import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import type { Clock } from "../../lib/base/clock.ts";
import { limits } from "../../lib/base/limits.ts";
import type { PrivateFile } from "../../lib/base/private_file.ts";
import type { RandomSource } from "../../lib/base/random.ts";
import {
  type GroupSettings,
  joinDisk,
  joinGroup,
  joinMember,
  listDisks,
  listMembers,
} from "../../lib/meta/group.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import { type Metadata, OutcomeUnknownError } from "../../lib/meta/metadata.ts";
import { keys } from "../../lib/meta/records.ts";

const clock: Clock = { nowMs: () => 0, wallMs: () => 1234, after: () => ({ cancel: () => {} }) };
let seed = 1;
const random: RandomSource = {
  fill: (bytes) => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = (seed = (seed * 48271) % 0x7fffffff) >> 7;
  },
};
const settings: GroupSettings = {
  name: "demo",
  iqnPrefix: "iqn.2026-11.net.plimsoll.demo",
  pageBytes: 2 ** 22,
};

class FakeFile implements PrivateFile {
  readonly path = "var/group.secret";
  text: string | null = null;
  read(): Promise<string | null> {
    return Promise.resolve(this.text);
  }
  make(text: string): Promise<boolean> {
    if (this.text !== null) return Promise.resolve(false);
    this.text = text;
    return Promise.resolve(true);
  }
  remove(): Promise<void> {
    this.text = null;
    return Promise.resolve();
  }
}

/** Carries commits out, but says of the first `unknown` of them that it does not know. */
function forgetful(metadata: Metadata, unknown: number): Metadata {
  return new Proxy(metadata, {
    get: (target, name) => {
      if (name !== "commit") return (target[name as keyof Metadata] as () => unknown).bind(target);
      return async (...args: Parameters<Metadata["commit"]>) => {
        const result = await target.commit(...args);
        if (unknown-- > 0) throw new OutcomeUnknownError("lost connection");
        return result;
      };
    },
  });
}

Deno.test("the first start creates the group and its secret; later ones prove themselves with it", async () => {
  // Lost without it: a second member that cannot join, or one that joins without the secret.
  const store = new MemoryMetadataStore(clock);
  const file = new FakeFile();
  const first = await joinGroup(store.connect(), settings, file, random, clock);
  assert.equal(first.created, true);
  assert.match(first.group.id, /^[0-9a-f]{32}$/);
  assert.equal(first.group.createdMs, 1234);
  assert.equal(file.text, `${first.secret}\n`);
  assert.equal(first.group.secretHash, createHash("sha256").update(first.secret).digest("hex"));
  const second = await joinGroup(store.connect(), settings, file, random, clock);
  assert.deepEqual([second.created, second.group, second.secret], [false, first.group, first.secret]);

  const none = new FakeFile();
  await assert.rejects(
    joinGroup(store.connect(), settings, none, random, clock),
    /its secret file "var\/group\.secret" is missing\. Copy it from a member\./,
  );
  assert.equal(none.text, null);
  none.text = "some other secret, long enough";
  await assert.rejects(joinGroup(store.connect(), settings, none, random, clock), /holds a wrong secret/);
});

Deno.test("a start that died after it made the secret file is taken up by the next", async () => {
  // Lost without it: a group whose secret nobody has.
  const file = new FakeFile();
  file.text = "0123456789abcdef0123456789abcdef\n";
  const store = new MemoryMetadataStore(clock);
  const joined = await joinGroup(store.connect(), settings, file, random, clock);
  assert.deepEqual([joined.created, joined.secret], [true, "0123456789abcdef0123456789abcdef"]);
  file.text = "short\n";
  await assert.rejects(
    joinGroup(new MemoryMetadataStore(clock).connect(), settings, file, random, clock),
    /holds a secret of 5 characters; 16 is the least/,
  );
});

Deno.test("of simultaneous first starts one creates the group, and no wrong secret stays behind", async () => {
  // Lost without it: members that boot together and exclude each other.
  const store = new MemoryMetadataStore(clock);
  const shared = new FakeFile();
  const apart = new FakeFile();
  const starts = await Promise.allSettled(
    [shared, shared, shared, apart].map((file) => joinGroup(store.connect(), settings, file, random, clock)),
  );
  const joined = starts.flatMap((s) => (s.status === "fulfilled" ? [s.value] : []));
  assert.equal(joined.filter((j) => j.created).length, 1);
  assert.equal(new Set(joined.map((j) => j.secret)).size, 1);
  assert.equal(joined.length, 3);
  const lost = starts[3]!;
  assert.ok(lost.status === "rejected" && /Copy it from a member/.test(String(lost.reason)), "the one apart");
  assert.equal(apart.text, null);
});

Deno.test("an unknown outcome is read back, not repeated", async () => {
  // Lost without it: a tag wasted, or a start that fails, for a lost answer.
  const metadata = new MemoryMetadataStore(clock).connect();
  const group = await joinGroup(forgetful(metadata, 1), settings, new FakeFile(), random, clock);
  assert.equal(group.created, true);
  const member = await joinMember(forgetful(metadata, 1), "alpha", random);
  assert.equal(member.targetPortalGroupTag, 1);
  assert.equal((await joinMember(metadata, "beta", random)).targetPortalGroupTag, 2);
  // A change that never takes effect, and whose outcome stays unknown, is given up in the end.
  const silent: Metadata = Object.assign(new MemoryMetadataStore(clock).connect(), {
    commit: () => Promise.reject(new OutcomeUnknownError("lost connection")),
  });
  await assert.rejects(joinMember(silent, "gamma", random), OutcomeUnknownError);
});

Deno.test("metadata of another group is refused; other differences are told", async () => {
  // Lost without it: a member that serves under changed names after an edit of its file.
  const store = new MemoryMetadataStore(clock);
  const file = new FakeFile();
  await joinGroup(store.connect(), settings, file, random, clock);
  await assert.rejects(
    joinGroup(store.connect(), { ...settings, name: "other" }, file, random, clock),
    /the metadata is that of group "demo"/,
  );
  await assert.rejects(
    joinGroup(store.connect(), { ...settings, pageBytes: 2 ** 20 }, file, random, clock),
    /page_size is 1048576 bytes in the file and 4194304 in the group, .*\. Correct page_size in \[group\]\./,
  );
  const edited = { ...settings, iqnPrefix: "iqn.2026-11.net.plimsoll.other" };
  const joined = await joinGroup(store.connect(), edited, file, random, clock);
  assert.equal(joined.differences.length, 1);
  assert.match(
    joined.differences[0]!,
    /"iqn\.2026-11\.net\.plimsoll\.other" in the file and "iqn.*demo" in the group/,
  );
  assert.equal(joined.group.pageBytes, 2 ** 22);
});

Deno.test("members that start at once get different tags, and keep them", async () => {
  // Lost without it: two portals that initiators cannot tell apart.
  const store = new MemoryMetadataStore(clock);
  const names = Array.from({ length: 20 }, (_, i) => `m${i}`);
  const join = () => Promise.all(names.map((name) => joinMember(store.connect(), name, random)));
  const records = await join();
  assert.deepEqual(
    records.map((r) => r.targetPortalGroupTag).sort((a, b) => a - b),
    names.map((_, i) => i + 1),
  );
  assert.ok(records.every((r) => r.relativeTargetPort === r.targetPortalGroupTag));
  assert.equal(new Set(records.map((r) => r.id)).size, 20);
  assert.deepEqual(await join(), records);
  const metadata = store.connect();
  assert.equal((await listMembers(metadata)).length, 20);
  await metadata.commit([], [{ kind: "delete", key: keys.member("m3") }]);
  assert.equal(
    (await joinMember(metadata, "m3", random)).targetPortalGroupTag,
    21,
    "a tag is never used again",
  );
});

Deno.test("a group has a limit of members, and those it has go on joining", async () => {
  // Lost without it: a start in a loop, each time under a new name, that fills the metadata.
  const store = new MemoryMetadataStore(clock);
  for (let i = 0; i < limits.membersMax; i++) await joinMember(store.connect(), `m${i}`, random);
  await assert.rejects(
    joinMember(store.connect(), "more", random),
    /has 32 members, and more are not supported/,
  );
  await joinMember(store.connect(), "m31", random);
});

Deno.test("disks get placement ids that stay, follow their path, and belong to one member", async () => {
  // Lost without it: routes that point at another disk than yesterday.
  const store = new MemoryMetadataStore(clock);
  const metadata = store.connect();
  const disk = (digit: string, member: string) => ({
    id: digit.repeat(32),
    member,
    path: `var/${member}/${digit}.img`,
    sizeBytes: 2 ** 33,
    slots: 2000,
  });
  const [a, b] = await Promise.all([
    joinDisk(store.connect(), disk("a", "alpha")),
    joinDisk(store.connect(), disk("b", "beta")),
  ]);
  assert.deepEqual([a.placement, b.placement].sort(), [1, 2]);
  assert.deepEqual(await joinDisk(metadata, disk("a", "alpha")), a);
  const moved = await joinDisk(metadata, { ...disk("a", "alpha"), path: "/dev/sdb", slots: 4000 });
  assert.deepEqual([moved.placement, moved.path, moved.slots], [a.placement, "/dev/sdb", 4000]);
  await assert.rejects(
    joinDisk(metadata, disk("a", "beta")),
    /is a disk of member "alpha" \(there "\/dev\/sdb"\)/,
  );
  assert.deepEqual((await listDisks(metadata)).map((d) => d.placement), [1, 2]);
  await metadata.commit([], [{
    kind: "put",
    key: keys.nextPlacement,
    value: new TextEncoder().encode("256"),
  }]);
  await assert.rejects(joinDisk(metadata, disk("c", "alpha")), /has had 255 disks/);
});
