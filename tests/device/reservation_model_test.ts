// Without this, a slip in one of the many cases of PERSISTENT RESERVE OUT lets two cluster nodes write at once, unnoticed.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import {
  noReservations,
  type PersistentReservationState,
  persistentReserveOut,
  type PersistentReserveOutRequest,
} from "../../lib/device/persistent_reservation_state.ts";
import { afterPowerOn, decodeUnit, encodeUnit, noUnitRecord } from "../../lib/device/unit_record.ts";
import { Model, play, registrationsMax, type Step } from "./reservation_model.ts";

const name = (n: number) => ({
  initiatorName: `iqn.2026-01.test:${n >> 1}`,
  isid: 7,
  relativeTargetPort: 1 + (n & 1),
});
const keyText = (k: number) => k.toString(16).padStart(16, "0");
const numbers = (names: readonly { initiatorName: string; relativeTargetPort: number }[]) =>
  names.map((n) => Number(n.initiatorName.split(":")[1]) * 2 + n.relativeTargetPort - 1).toSorted();

function request(s: Step): PersistentReserveOutRequest {
  return {
    nexus: name(s.from),
    action: s.action,
    scope: s.scope,
    type: s.type,
    key: keyText(s.key),
    actionKey: keyText(s.actionKey),
    persist: s.persist,
    targetPorts: s.allPorts ? [1, 2] : null,
    alsoRegister: s.also?.map(name) ?? null,
    destination: name(s.to),
    unregister: s.unregister,
  };
}

function same(state: PersistentReservationState, m: Model): void {
  assert.deepEqual(
    new Map(state.registrations.map((r) => [numbers([r.nexus])[0], r.key])),
    new Map(m.registered().map((n) => [n, keyText(m.key[n]!)])),
  );
  assert.equal(state.reservation?.type ?? 0, m.type);
  if (m.type !== 0) {
    const holder = state.reservation!.holder;
    assert.equal(holder === null ? "all" : numbers([holder])[0], m.type >= 7 ? "all" : m.holder);
  }
  assert.equal(state.generation, m.generation);
  assert.equal(state.persist, m.persist);
}

const step: fc.Arbitrary<Step> = fc.record({
  from: fc.constantFrom(0, 0, 0, 0, 1, 2, 2, 3, 4, 5),
  action: fc.oneof({ weight: 3, arbitrary: fc.constantFrom(0, 6) }, {
    weight: 6,
    arbitrary: fc.integer({ min: 1, max: 7 }),
  }),
  scope: fc.oneof({ weight: 15, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(1) }),
  type: fc.oneof({ weight: 12, arbitrary: fc.constantFrom(1, 3, 5, 6, 7, 8) }, {
    weight: 1,
    arbitrary: fc.nat(15),
  }),
  key: fc.constantFrom(-1, -1, -1, 0, 1, 2), // -1: the right one
  actionKey: fc.constantFrom(0, 1, 1, 2, 3),
  persist: fc.boolean(),
  allPorts: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, {
    weight: 1,
    arbitrary: fc.constant(true),
  }),
  also: fc.oneof(
    { weight: 7, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: fc.array(fc.nat(5), { maxLength: 3 }) },
  ),
  to: fc.nat(5),
  unregister: fc.boolean(),
});

Deno.test("every sequence of PERSISTENT RESERVE OUT does what an independent model of SPC-4 says", () => {
  const seen = new Map<string, number>();
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60, size: "max" }), (steps) => {
      let state = noReservations;
      let model = new Model();
      for (const raw of steps) {
        const s = { ...raw, key: raw.key < 0 ? model.key[raw.from]! : raw.key };
        const tried = model.copy();
        const expected = play(tried, s);
        const outcome = persistentReserveOut(state, request(s), registrationsMax);
        const label = `${s.action} ${outcome.kind}`;
        seen.set(label, (seen.get(label) ?? 0) + 1);
        if (typeof expected === "string") {
          assert.equal(outcome.kind, expected);
          continue;
        }
        assert.equal(outcome.kind, "good");
        if (outcome.kind !== "good") return;
        assert.deepEqual(numbers(outcome.attentions.reservationsPreempted), expected.preempted);
        assert.deepEqual(numbers(outcome.attentions.reservationsReleased), expected.released);
        assert.deepEqual(numbers(outcome.attentions.registrationsPreempted), expected.removed);
        assert.deepEqual(numbers(outcome.abort), expected.abort);
        state = outcome.state;
        model = tried;
        same(state, model);
        const kept = decodeUnit(encodeUnit({ ...noUnitRecord, reservations: state }).bytes);
        assert.deepEqual(kept.reservations, state);
        const off = afterPowerOn(kept).reservations;
        assert.deepEqual(off, state.persist ? { ...state, generation: 0 } : noReservations);
      }
    }),
    { numRuns: 5000 },
  );
  // The generator reaches every service action's good end and its errors.
  for (const action of [0, 1, 2, 3, 4, 5, 6, 7]) {
    assert.ok((seen.get(`${action} good`) ?? 0) > 0, `action ${action}`);
  }
  for (
    const label of [
      "0 insufficientRegistrationResources",
      "0 invalidFieldInParameterList",
      "1 invalidFieldInCdb",
      "2 invalidRelease",
      "4 invalidFieldInCdb",
      "7 conflict",
    ]
  ) assert.ok((seen.get(label) ?? 0) > 0, label);
});

Deno.test("two nexuses and one key: every state within four steps keeps the invariants of SPC-4 §5.13", () => {
  const steps: Step[] = [];
  for (const from of [0, 2]) {
    for (const action of [0, 1, 2, 3, 4, 6, 7]) {
      for (const type of action === 0 || action === 3 || action === 6 || action === 7 ? [0] : [1, 5, 7]) {
        for (const actionKey of [0, 1]) {
          steps.push({
            from,
            action,
            type,
            actionKey,
            key: -1,
            scope: 0,
            persist: false,
            allPorts: false,
            also: null,
            to: 2 - from,
            unregister: true,
          }); // deno-fmt-ignore
        }
      }
    }
  }
  const known = new Map<string, PersistentReservationState>();
  let edge = [noReservations];
  for (let depth = 0; depth < 4; depth++) {
    const next: PersistentReservationState[] = [];
    for (const state of edge) {
      for (const s of steps) {
        const own = state.registrations.find((r) => numbers([r.nexus])[0] === s.from);
        const outcome = persistentReserveOut(state, { ...request(s), key: own?.key ?? keyText(0) }, 4);
        if (outcome.kind !== "good") continue;
        const after = outcome.state;
        const label = JSON.stringify([after.registrations, after.reservation]);
        if (known.has(label)) continue;
        known.set(label, after);
        next.push(after);
        const reservation = after.reservation;
        if (reservation === null) continue;
        assert.ok(after.registrations.length > 0, "a reservation without a registration");
        assert.equal(reservation.holder === null, reservation.type >= 7);
        const holder = reservation.holder;
        if (holder !== null) {
          assert.ok(after.registrations.some((r) => numbers([r.nexus])[0] === numbers([holder])[0]));
        }
      }
    }
    edge = next;
  }
  assert.ok(known.size >= 15, `only ${known.size} states were reached`);
});
