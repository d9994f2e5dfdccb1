import { strict as assert } from "node:assert";
import fc from "fast-check";
import { FrameReader, type FrameSink } from "../../lib/session/framing.ts";
import { ReceivedViews } from "../../lib/session/received_views.ts";
import { build, type Digests } from "./pdus.ts";

/** Writes down what it is told; data goes into its own buffer, or nowhere for pings with tag 3. */
class Recorder implements FrameSink {
  readonly lines: string[] = [];
  readonly reader: FrameReader = new FrameReader(this);
  #data = new Uint8Array(0);
  stopAt = -1;

  header(view: DataView, at: number, ahsBytes: number, dataBytes: number): boolean {
    const tag = view.getUint32(at + 16);
    this.#data = new Uint8Array(dataBytes + 8).fill(0xee);
    if (tag !== 3) {
      this.reader.dataInto = this.#data;
      this.reader.dataIntoAt = 4;
    }
    return tag !== this.stopAt && ahsBytes >= 0;
  }

  pdu(view: DataView, at: number, ahsBytes: number, dataBytes: number, digestRight: boolean): boolean {
    const ahs = Array.from({ length: ahsBytes }, (_, i) => view.getUint8(at + 48 + i));
    const tag = view.getUint32(at + 16);
    const data = [...this.#data].map((b) => b.toString(16)).join("");
    this.lines.push(
      `tag=${tag} cmdSn=${view.getUint32(at + 24)} ahs=[${ahs}] ${dataBytes} ${digestRight} ${data}`,
    );
    return true;
  }

  broken(reason: string): void {
    this.lines.push(`broken ${reason}`);
  }
}

const data = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 3 + 1) & 0xff);

function conversation(digests: Digests): Uint8Array {
  const pdus = [
    build({ kind: "nop", fields: { initiatorTaskTag: 1, cmdSn: 7 } }, digests),
    build({ kind: "nop", fields: { initiatorTaskTag: 2, cmdSn: 8 }, data: data(5) }, digests),
    build({ kind: "nop", fields: { initiatorTaskTag: 3, cmdSn: 9 }, data: data(8) }, digests),
    build(
      { kind: "command", fields: { initiatorTaskTag: 4, cmdSn: 10 }, ahs: data(8), data: data(3) },
      digests,
    ),
    build({ kind: "nop", fields: { initiatorTaskTag: 5, cmdSn: 11 }, data: data(1) }, digests),
  ];
  return Uint8Array.from(pdus.flatMap((p) => [...p]));
}

function read(bytes: Uint8Array, cuts: readonly number[], digests: Digests): string[] {
  const recorder = new Recorder();
  recorder.reader.headerDigest = digests.header;
  recorder.reader.dataDigest = digests.data;
  let from = 0;
  for (const to of [...cuts, bytes.length]) {
    const buffer = new Uint8Array(to - from + 9).fill(0xcc);
    buffer.set(bytes.subarray(from, to), 5);
    recorder.reader.received(buffer, new DataView(buffer.buffer), 5, 5 + to - from);
    buffer.fill(0xdd); // the buffer is used again
    from = to;
  }
  assert.equal(recorder.reader.partial, false);
  return recorder.lines;
}

Deno.test("framing: the same PDUs however the stream is cut", () => {
  // Without this, a PDU that straddles two reads is lost or garbled.
  for (const header of [false, true]) {
    for (const dataDigest of [false, true]) {
      const digests = { header, data: dataDigest };
      const bytes = conversation(digests);
      const whole = read(bytes, [], digests);
      assert.equal(whole.length, 5);
      assert.match(whole[1]!, /^tag=2 cmdSn=8 ahs=\[\] 5 true eeeeeeee1471addeeeeeeee$|^tag=2/);
      for (let cut = 1; cut < bytes.length; cut++) assert.deepEqual(read(bytes, [cut], digests), whole);
      const single = Array.from({ length: bytes.length - 1 }, (_, i) => i + 1);
      assert.deepEqual(read(bytes, single, digests), whole);
    }
  }
});

Deno.test("framing: data lands where the sink wants it and nowhere else", () => {
  // Without this, padding or a digest could be written behind a command's data.
  const recorder = new Recorder();
  const bytes = build({
    kind: "nop",
    fields: { initiatorTaskTag: 2, cmdSn: 1 },
    data: Uint8Array.of(1, 2, 3),
  });
  recorder.reader.received(bytes, new DataView(bytes.buffer), 0, bytes.length);
  assert.match(recorder.lines[0]!, / 3 true eeeeeeee123eeeeeeee$/);
});

Deno.test("framing: a wrong header digest and too long a segment break the stream; a wrong data digest does not", () => {
  // Without this, the parser goes on in the middle of nowhere (RFC 7143 §7.8).
  const digests = { header: true, data: true };
  for (const [place, line] of [[20, "broken headerDigest"], [54, "false"]] as const) {
    const recorder = new Recorder();
    recorder.reader.headerDigest = true;
    recorder.reader.dataDigest = true;
    const bytes = build({ kind: "nop", fields: { initiatorTaskTag: 2, cmdSn: 1 }, data: data(8) }, digests);
    bytes[place]! ^= 4;
    const twice = Uint8Array.from([...bytes, ...bytes]);
    recorder.reader.received(twice, new DataView(twice.buffer), 0, twice.length);
    assert.ok(recorder.lines[0]!.includes(line), recorder.lines[0]);
    assert.equal(recorder.lines.length, place === 20 ? 1 : 2);
  }
  const recorder = new Recorder();
  recorder.reader.dataBytesMax = 16;
  const long = build({ kind: "nop", fields: { initiatorTaskTag: 2, cmdSn: 1 }, data: data(17) });
  recorder.reader.received(long, new DataView(long.buffer), 0, long.length);
  assert.deepEqual(recorder.lines, ["broken dataTooLong"]);
});

Deno.test("framing: a sink that says stop hears nothing more", () => {
  // Without this, PDUs behind a logout are still carried out.
  const recorder = new Recorder();
  recorder.stopAt = 3;
  const bytes = conversation({ header: false, data: false });
  recorder.reader.received(bytes, new DataView(bytes.buffer), 0, bytes.length);
  recorder.reader.received(bytes, new DataView(bytes.buffer), 0, bytes.length);
  assert.equal(recorder.lines.length, 2);
});

Deno.test("framing: a buffer that is forgotten is not written to any more", () => {
  // Without this, data of an aborted write lands in a buffer that already belongs to another command.
  const recorder = new Recorder();
  const bytes = build({ kind: "nop", fields: { initiatorTaskTag: 1, cmdSn: 1 }, data: data(100) });
  recorder.reader.received(bytes, new DataView(bytes.buffer), 0, 60);
  const into = recorder.reader.dataInto!;
  recorder.reader.forget(into);
  const before = into.slice();
  recorder.reader.received(bytes, new DataView(bytes.buffer), 60, bytes.length);
  assert.deepEqual(into, before);
  assert.equal(recorder.lines.length, 1);
});

Deno.test("a kept view of what was received is the one that was asked for, whatever was asked before", () => {
  const buffers = [new Uint8Array(70_000).map((_, i) => i), new Uint8Array(70_000).map((_, i) => i * 7)];
  const views = new ReceivedViews();
  const ask = fc.record({
    which: fc.nat(1),
    start: fc.nat(300).map((n) => n * 200 + n % 3),
    length: fc.integer({ min: 1, max: 5000 }),
  });
  fc.assert(
    fc.property(
      fc.array(fc.oneof(ask, fc.constant({ which: 0, start: 4144, length: 4096 })), { maxLength: 200 }),
      (asks) => {
        for (const { which, start, length } of asks) {
          const buffer = buffers[which]!;
          const view = views.of(buffer, start, length);
          assert.equal(view.buffer, buffer.buffer);
          assert.deepEqual([view.byteOffset, view.length], [start, length]);
        }
      },
    ),
  );
  assert.equal(views.of(buffers[0]!, 48, 4096), views.of(buffers[0]!, 48, 4096), "nothing was kept");
});
