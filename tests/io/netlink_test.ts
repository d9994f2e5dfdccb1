// Without this, the kernel's answer to one question is taken for that to another: a rule counts as made that is not, an address
// as gone that is there.

import { strict as assert } from "node:assert";
import { CallError } from "../../lib/io/native/flow_calls.ts";
import { libc } from "../../lib/io/native/libc.ts";
import { nativeEndian, NetlinkBatch, NetlinkSocket, Request } from "../../lib/io/native/netlink.ts";

const getLink = 18;
const newLink = 16;
const enodev = 19;
const loopback = 1;
const nobody = 0x7fff_ffff;

/** struct ifinfomsg of one interface. */
function link(index: number): Uint8Array {
  const header = new Uint8Array(16);
  header.set(nativeEndian(index), 4);
  return header;
}

class Scene implements Disposable {
  readonly batch = new NetlinkBatch();
  readonly #socket = new NetlinkSocket(0);

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  commit(...messages: [index: number, flags: number][]): string {
    return this.#outcome((what) => this.#socket.commit(this.#ask(messages), what));
  }

  list(index: number): string {
    return this.#outcome((what) => {
      const found = this.#socket.list(this.#ask([[index, Request.acknowledge]]), what, newLink);
      return found.map((body) => body.getInt32(4, true)).join();
    });
  }

  #ask(messages: [index: number, flags: number][]): NetlinkBatch {
    this.batch.clear();
    for (const [index, flags] of messages) this.batch.message(getLink, flags, link(index));
    return this.batch;
  }

  #outcome(work: (what: string) => string | void): string {
    try {
      return work("Cannot ask") ?? "done";
    } catch (error) {
      assert.ok(error instanceof CallError && error.errno === enodev, `${error}`);
      return "refused";
    }
  }
}

Deno.test({
  name: "an answer counts for the batch that asked, whatever an earlier one has left",
  ignore: libc() === null,
}, () => {
  using s = new Scene();
  for (let round = 0; round < 3; round++) {
    // A refusal without having asked for an acknowledgement is one answer more than is waited for.
    assert.equal(s.commit([nobody, 0], [loopback, Request.acknowledge]), "refused");
    assert.equal(
      s.commit([nobody, Request.acknowledge]),
      "refused",
      "not the acknowledgement of the last one",
    );
    assert.equal(s.commit([nobody, 0], [loopback, Request.acknowledge]), "refused");
    assert.equal(s.commit([loopback, Request.acknowledge]), "done");
    assert.equal(s.commit([nobody, 0], [loopback, Request.acknowledge]), "refused");
    assert.equal(s.list(nobody), "refused", "not the link of the last one");
    assert.equal(s.commit([nobody, 0], [loopback, Request.acknowledge]), "refused");
    assert.equal(s.list(loopback), `${loopback}`);
  }
});

Deno.test("answers are told apart by their sequence numbers", () => {
  const batch = new NetlinkBatch();
  for (let i = 0; i < 3; i++) batch.message(getLink, 0, link(loopback));
  assert.deepEqual([0, 1, 3, 4, 0xffff_ffff].map((n) => batch.asked(n)), [false, true, true, false, false]);
  batch.clear();
  assert.ok(![0, 1, 3, 4].some((n) => batch.asked(n)), "nothing was asked");
  batch.message(getLink, 0, link(loopback));
  assert.deepEqual([3, 4, 5].map((n) => batch.asked(n)), [false, true, false]);
});
