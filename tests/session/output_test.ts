import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { Output } from "../../lib/session/output.ts";
import { OutputRings } from "../../lib/session/output_ring.ts";
import { FakeStream } from "./fake_world.ts";
import { split } from "./pdus.ts";

function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
}

Deno.test("output: PDUs of all shapes pass the ring many times, and owners are told once and in order", () => {
  // Without this, a header could be overwritten while the stream still sends it.
  for (const digests of [{ header: false, data: false }, { header: true, data: true }]) {
    const random = generator(digests.header ? 3 : 5);
    const stream = new FakeStream();
    const output = new Output(stream);
    output.headerDigest = digests.header;
    output.dataDigest = digests.data;
    const told: number[] = [];
    const sent: number[] = [];
    let full = 0;
    const all: Uint8Array[] = [];
    for (let i = 0; i < 20_000; i++) {
      if (random(300) === 0) stream.flush(1 + random(3000));
      const inline = random(3) === 0 ? random(300) : 0;
      const control = random(4) === 0;
      const at = output.begin(inline, control);
      if (at < 0) {
        full++;
        stream.flush(50);
        continue;
      }
      for (let k = 0; k < 48; k++) assert.equal(output.bytes[at + k], 0);
      output.bytes[at] = 0x20;
      output.view.setUint32(at + 16, i);
      const owner = { sent: () => told.push(i) };
      sent.push(i);
      if (inline > 0) {
        output.bytes.fill(i & 0xff, output.dataAt(at), output.dataAt(at) + inline);
        output.finish(inline, owner);
      } else if (random(2) === 0) {
        const data = new Uint8Array(random(64) + 1).fill(i & 0xff);
        output.finishWith(data, 0, data.length, owner);
      } else output.finish(0, owner);
      all.push(...stream.output.splice(0));
    }
    stream.flush();
    all.push(...stream.output);
    assert.ok(full > 0, "the ring was never full");
    assert.deepEqual(told, sent);
    assert.equal(output.pdusUnderWay, 0);
    const bytes = new Uint8Array(all.reduce((n, b) => n + b.length, 0));
    let at = 0;
    for (const b of all) {
      bytes.set(b, at);
      at += b.length;
    }
    const pdus = split(bytes, digests);
    assert.deepEqual(pdus.map((p) => p.view.getUint32(16)), sent);
    for (const pdu of pdus) {
      const mark = pdu.view.getUint32(16) & 0xff;
      assert.ok(pdu.data.every((b) => b === mark));
    }
  }
});

Deno.test("output: data leaves a part of the ring to control", () => {
  // Without this, reads that are not taken keep pings and task management from being answered.
  const stream = new FakeStream();
  const output = new Output(stream);
  let data = 0;
  while (output.begin(0, false) >= 0) {
    output.finish(0, null);
    data++;
  }
  let control = 0;
  while (output.begin(0, true) >= 0) {
    output.finish(0, null);
    control++;
  }
  assert.ok(data >= 500 && control >= 2 * data, `${data} data, ${control} control`);
  assert.ok(stream.pendingBytes <= limits.outputRingBytes);
});

Deno.test("output: the ring of an ended connection is the next one's, and no stream's", () => {
  // Without this, each login leaves 156 KiB to the next full garbage collection, or two connections write into one ring.
  const rings = new OutputRings();
  const stream = new FakeStream();
  const first = new Output(stream, rings);
  const { bytes } = first;
  first.begin(0, true);
  first.finish(0, null);
  first.close();
  assert.equal(rings.idle, 0, "the stream has a PDU of it");
  assert.equal(first.bytes, bytes);
  stream.flush();
  first.close();
  first.close();
  assert.equal(rings.idle, 1);
  assert.equal(first.begin(0, true), -1, "a closed output has no room");
  const second = new Output(new FakeStream(), rings);
  assert.equal(second.bytes, bytes);
  assert.notEqual(new Output(new FakeStream(), rings).bytes, bytes);
  const many = Array.from({ length: 2 * limits.idleOutputRingsMax }, () => new Output(stream, rings));
  for (const output of many) output.close();
  assert.equal(rings.idle, limits.idleOutputRingsMax);
});
