// Without this, docs/vendor-commands.md and the tables that the program reads bytes by could part, and who writes another
// end by the page would find out with garbage.

import { strict as assert } from "node:assert";
import type { Field } from "../../lib/wire/field.ts";
import { BlockEnvelope, PageMoveEnvelope } from "../../lib/wire/scsi/forward.ts";
import { IntentHeader, LoadReportClient, LoadReportHeader } from "../../lib/wire/scsi/load_report.ts";
import { MemberMessage, MessageKind } from "../../lib/wire/scsi/member_message.ts";
import { MultipathIn } from "../../lib/wire/scsi/multipath.ts";
import { MultipathReply } from "../../lib/wire/scsi/multipath_reply.ts";
import { PageSwapHeader } from "../../lib/wire/scsi/page_swap.ts";
import { FlowHead, HeldHead, MovedHead, RestartHead } from "../../lib/wire/scsi/session_move.ts";
import { ShortCutHead } from "../../lib/wire/scsi/short_cut.ts";

const page = await Deno.readTextFile(new URL("../../docs/vendor-commands.md", import.meta.url));

type Range = readonly [from: number, to: number];

/** The tables with bytes in their first column, in the page's order: "8–9, 10–11" are two ranges, "16–" has no end. */
const tables: Range[][] = [...page.matchAll(/^\| byte \|.*\n\|[-|]+\n((?:\|.*\n?)+)/gm)].map(([, rows]) =>
  rows!.trim().split("\n").flatMap((row) =>
    [...row.split("|")[1]!.matchAll(/(\d+)(–)?(\d+)?/g)].map(([, from, dash, to]): Range => {
      return [Number(from), to !== undefined ? Number(to) : dash !== undefined ? Infinity : Number(from)];
    })
  )
);

/** Fields, and from which byte of the page's they count. */
type Part = readonly [fields: Readonly<Record<string, Field>>, at: number];

/** In the page's order; none: of what no table of fields reads. */
const layouts: readonly (readonly Part[])[] = [
  [[BlockEnvelope.fields, 0]],
  [[PageMoveEnvelope.fields, 0]],
  [[MemberMessage.fields, 0]],
  [[LoadReportHeader, 0]],
  [[LoadReportClient, 0]],
  [[IntentHeader, 0]],
  [[PageSwapHeader, 0]],
  [[ShortCutHead, 0]],
  [[HeldHead, 0]],
  [[MovedHead, 96]],
  [[FlowHead, 0]],
  [[FlowHead, 0], [RestartHead, 12]],
  [[MultipathIn.fields, 0]],
  [[MultipathReply, 0]],
  [], // the session object
];

Deno.test("every field lies where the page says, and the page's rows overlap in shared bytes only", () => {
  assert.equal(tables.length, layouts.length, "a table has come or gone: put its fields into the list");
  for (const [i, layout] of layouts.entries()) {
    const ranges = tables[i]!;
    for (const [j, [from, to]] of ranges.entries()) {
      assert.ok(from <= to, `table ${i + 1}: ${from}–${to}`);
      const before = ranges[j - 1] ?? [from, from];
      assert.ok(from >= before[0] && to >= before[1], `table ${i + 1}: ${from}–${to} is out of order`);
    }
    const fields = layout.flatMap(([table, at]) =>
      Object.entries(table).map(([name, { offset, bytes }]) =>
        [name, at + offset, at + offset + bytes - 1] as const
      )
    );
    for (const [name, first, last] of fields) {
      assert.ok(
        ranges.some(([from, to]) => from <= first && last <= to && (from === first || name === "keyLow")),
        `table ${i + 1}: ${name} lies in bytes ${first} to ${last}, and no row begins there`,
      );
    }
  }
});

Deno.test("the page names every kind of message", () => {
  const row = /^\| 2–3 \| +\| kind \|(.*)\|$/m.exec(page)![1]!;
  const told = [...row.matchAll(/(\d+) [a-z]/g)].map(([, number]) => Number(number));
  assert.deepEqual(told, Object.values(MessageKind));
});
