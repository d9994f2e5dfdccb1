// Without these, a term of the score could be there for show: each alone turns a decision round.

import { strict as assert } from "node:assert";
import { scoreMove, type TermName, termNames } from "../../lib/balance/score.ts";
import type { ConnectionView, MemberView } from "../../lib/balance/view.ts";
import { client, connection, group, member, settings } from "./scene.ts";

interface Case {
  readonly term: TermName;
  /** Same in all but what the term looks at. */
  readonly stays: readonly [MemberView[], ConnectionView];
  readonly goes: readonly [MemberView[], ConnectionView];
}

const there = new Map([[2, 1]]), here = new Map([[1, 1]]);
const crowded = (tag: number) =>
  member(1, 100, { clients: [client("c2", { work: 100, served: new Map([[tag, 1]]) })] });

const cases: Case[] = [
  // Whether its member has more to do than others. (Its work is a small part of theirs.)
  {
    term: "load",
    stays: [[member(1, 100), member(2, 70), member(3, 130)], connection(30)],
    goes: [[member(1, 200), member(2, 70), member(3, 30)], connection(30)],
  },
  // Whether the destination has room for what goes along.
  {
    term: "charge",
    stays: [[member(1, 160), member(2, 100), member(3, 40)], connection(60)],
    goes: [[member(1, 160), member(2, 40), member(3, 100)], connection(60)],
  },
  {
    term: "affinity",
    stays: [[member(1, 100), member(2, 60), member(3, 140)], connection(40, { recent: here })],
    goes: [[member(1, 100), member(2, 60), member(3, 140)], connection(40, { recent: there })],
  },
  {
    term: "history",
    stays: [[member(1, 100), member(2, 60), member(3, 140)], connection(40, { history: here })],
    goes: [[member(1, 100), member(2, 60), member(3, 140)], connection(40, { history: there })],
  },
  // Whom the volume's other clients use: with a little affinity that the effort outweighs.
  {
    term: "volume",
    stays: [
      [crowded(2), member(2, 60), member(3, 140)],
      connection(40, { recent: new Map([[2, 0.6], [1, 0.3]]) }),
    ],
    goes: [
      [crowded(1), member(2, 60), member(3, 140)],
      connection(40, { recent: new Map([[2, 0.6], [1, 0.3]]) }),
    ],
  },
  {
    term: "class",
    stays: [
      [member(1, 200), member(2, 20), member(3, 80)],
      connection(30, { volumeClass: "fixed" }),
    ],
    goes: [[member(1, 200), member(2, 20), member(3, 80)], connection(30)],
  },
  {
    term: "effort",
    stays: [[member(1, 200), member(2, 20), member(3, 80)], connection(30, { moves: 5, ageMs: 1e7 })],
    goes: [[member(1, 200), member(2, 20), member(3, 80)], connection(30, { moves: 0, ageMs: 1e7 })],
  },
  {
    term: "limits",
    stays: [[member(1, 200), member(2, 20, { sessions: 100 }), member(3, 80)], connection(30)],
    goes: [[member(1, 200), member(2, 20, { sessions: 99 }), member(3, 80)], connection(30)],
  },
];

for (const { term, stays, goes } of cases) {
  Deno.test(`the term "${term}" alone turns a decision round`, () => {
    const score = ([members, one]: Case["stays"]) =>
      scoreMove(group(members, [one]), members[0]!, members[1]!, one, settings);
    const [no, yes] = [score(stays), score(goes)];
    assert.ok(no.total <= 0, `stays: ${no.total}`);
    assert.ok(yes.total > 0, `goes: ${yes.total}`);
    const value = (of: typeof no, name: TermName) => of.terms.find((t) => t.name === name)!.value;
    assert.ok(value(yes, term) > value(no, term));
    // Were it not for this term, it would stay (or go) both times.
    const without = (of: typeof no) => of.total - value(of, term);
    const swapped = [without(no) + value(yes, term), without(yes) + value(no, term)];
    assert.ok(swapped[0]! > 0 && swapped[1]! <= 0, `with the other's term: ${swapped}`);
  });
}

Deno.test("every term is there, with words", () => {
  const members = [member(1, 200), member(2, 20)];
  const one = connection(30);
  const { terms } = scoreMove(group(members, [one]), members[0]!, members[1]!, one, settings);
  assert.deepEqual(terms.map(({ name }) => name), [...termNames]);
  assert.ok(terms.every(({ why }) => why().length > 5));
  assert.deepEqual(cases.map(({ term }) => term), [...termNames]);
});

Deno.test("class local counts affinity twice", () => {
  const members = [member(1, 100), member(2, 90), member(3, 110)];
  const recent = new Map([[2, 0.8], [1, 0.2]]);
  const total = (volumeClass: "normal" | "local") => {
    const one = connection(30, { recent, volumeClass });
    return scoreMove(group(members, [one]), members[0]!, members[1]!, one, settings).total;
  };
  assert.ok(total("normal") <= 0 && total("local") > 0, `${total("normal")} ${total("local")}`);
});

Deno.test("every limit forbids, and says which", () => {
  const said = (
    to: Partial<MemberView["load"]>,
    change: Partial<ConnectionView>,
    others: MemberView[] = [],
  ) => {
    const members = [member(1, 200), member(2, 10, to), ...others];
    const one = connection(30, change);
    const { total, terms } = scoreMove(group(members, [one]), members[0]!, members[1]!, one, settings);
    assert.ok(total < -900);
    return terms.find(({ name }) => name === "limits")!.why();
  };
  assert.match(said({ draining: true }, {}), /beta is being drained/);
  assert.match(said({}, { pinned: "it has a reservation" }), /it has a reservation/);
  assert.match(said({}, { reachable: new Set([3]) }), /no portal of beta is in reach/);
  assert.match(said({}, { ageMs: 59_000 }), /been here for 59 s of at least 60/);
  assert.match(said({}, { ageMs: 119_000, moves: 1 }), /of at least 120/);
  assert.match(said({}, { pathsAt: new Set([1, 2]) }), /another session of the initiator/);
  const two = { pathsAt: new Set([1, 2]), pathsHere: 2 };
  assert.match(said({}, two, [member(3, 100)]), /another session of the initiator/);
});

Deno.test("whoever is drained does not wait for its time, and goes where there is least", () => {
  const members = [member(1, 50, { draining: true }), member(2, 50), member(3, 20)];
  const one = connection(1, { ageMs: 0, moves: 6 });
  const [beta, gamma] = [1, 2].map((i) =>
    scoreMove(group(members, [one]), members[0]!, members[i]!, one, settings).total
  );
  assert.ok(beta! > 0 && gamma! >= beta!);
});
