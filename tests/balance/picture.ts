// Writes docs/balancing.svg and the figures in docs/balancing.md: deno run -A tests/balance/picture.ts

import { balanceDefaults } from "../../lib/config/parse_balance.ts";
import { lookS, simulateHeat } from "./heat_simulation.ts";
import { type Run, simulate, type Weather } from "./simulation.ts";

const seconds = 1200;
const bound = balanceDefaults.deadBand + 0.05;
const docs = new URL("../../docs/", import.meta.url);

const rows: string[] = [];
const shown: { title: string; run: Run }[] = [];
for (const [members, clients] of [[3, 30], [16, 250], [64, 1000]] as const) {
  for (const weather of ["skewed", "swinging", "spiteful"] as const) {
    const run = simulate({ members, clients, seconds, weather, seed: 1 });
    rows.push(rowOf(members, clients, weather, run));
    if (members === 64 && weather !== "spiteful") {
      shown.push({ title: `64 members, 1,000 clients, ${weather}`, run });
    }
  }
}

function rowOf(members: number, clients: number, weather: Weather, run: Run): string {
  const percent = (share: number) => `${Math.round(share * 100)} %`;
  const late = run.excess.slice(seconds / 2).toSorted((a, b) => a - b);
  const until = run.excess.findLastIndex((excess) => excess > bound) + 1;
  const each = new Map<number, number>();
  for (const { client } of run.moves) each.set(client, (each.get(client) ?? 0) + 1);
  const cells = [
    members,
    clients,
    weather,
    percent(run.excess[10]!),
    percent(late[Math.floor(late.length / 2)]!),
    until < seconds ? `${until} s` : "never for good",
    run.moves.length,
    run.moves.filter(({ second }) => second >= seconds / 2).length,
    Math.max(0, ...each.values()),
  ];
  return `| ${cells.join(" | ")} |`;
}

const width = 760, panel = 200, left = 60, top = 34;

function picture(): string {
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${shown.length * (panel + 70)}" ` +
    `font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>`,
  ];
  shown.forEach(({ title, run }, i) => {
    const y0 = i * (panel + 70) + top;
    const max = Math.max(...run.highs);
    const x = (second: number) => left + (width - left - 20) * second / seconds;
    const y = (work: number) => y0 + panel - panel * work / max;
    const line = (values: readonly number[], colour: string) =>
      `<polyline fill="none" stroke="${colour}" points="${
        values.map((v, s) => s % 4 === 0 ? `${x(s).toFixed(1)},${y(v).toFixed(1)}` : "").filter(Boolean).join(
          " ",
        )
      }"/>`;
    const marks = run.moves.map(({ second }) => {
      const at = x(second).toFixed(1);
      return `<line x1="${at}" x2="${at}" y1="${y0 + panel}" y2="${
        y0 + panel + 6
      }" stroke="#888" stroke-width="0.5"/>`;
    });
    out.push(
      `<text x="${left}" y="${
        y0 - 12
      }" font-weight="bold">${title}: work of the busiest and the idlest member, moves below</text>`,
      `<line x1="${left}" y1="${y0 + panel}" x2="${width - 20}" y2="${y0 + panel}" stroke="black"/>`,
      `<text x="${left - 8}" y="${y(max) + 4}" text-anchor="end">${
        Math.round(max).toLocaleString("en")
      }</text>`,
      `<text x="${left - 8}" y="${y0 + panel + 4}" text-anchor="end">0</text>`,
      line(run.highs, "#c0392b"),
      line(run.lows, "#2471a3"),
      ...marks,
      ...[0, 300, 600, 900, 1200].map((s) =>
        `<text x="${x(s)}" y="${y0 + panel + 20}" text-anchor="middle">${s / 60} min</text>`
      ),
    );
  });
  return `${out.join("\n")}\n</svg>\n`;
}

await Deno.writeTextFile(new URL("balancing.svg", docs), picture());
/** Puts a table where the page has a place for it. */
async function writeTable(begin: string, end: string, lines: readonly string[]): Promise<void> {
  const page = new URL("balancing.md", docs);
  const text = await Deno.readTextFile(page);
  const at = text.indexOf(begin) + begin.length;
  await Deno.writeTextFile(
    page,
    `${text.slice(0, at)}\n${lines.join("\n")}\n\n${text.slice(text.indexOf(end))}`,
  );
}

await writeTable("<!-- figures: deno run -A tests/balance/picture.ts -->\n", "<!-- end of figures -->", [
  "| members | clients | load | above average at first | median of the last 10 min | within 30 % from | moves | of these in the last 10 min | most of one client |",
  "|---|---|---|---|---|---|---|---|---|",
  ...rows,
]);

const hour = 3600;
const heatRows = [3, 16, 64].flatMap((members) =>
  (["hotspot", "slow disk", "wandering", "spiteful"] as const).map((weather) => {
    const { slowestUs, ratio, swaps, moves } = simulateHeat({ members, weather, seed: 1, seconds: hour });
    const late = slowestUs.slice(-1200 / lookS).toSorted((a, b) => a - b);
    const { heatFactor, heatMinUs } = balanceDefaults;
    const until = lookS *
      (1 + slowestUs.findLastIndex((us, i) => us >= heatMinUs && ratio[i]! >= heatFactor));
    const us = (value: number) => `${Math.round(value).toLocaleString("en")} µs`;
    const cells = [
      members,
      weather,
      us(slowestUs[0]!),
      us(late[Math.floor(late.length / 2)]!),
      until < hour ? `${until} s` : "never for good",
      swaps.length,
      swaps.reduce((sum, { hot, cold }) => sum + hot + cold, 0),
      Math.max(0, ...moves.values()),
    ];
    return `| ${cells.join(" | ")} |`;
  })
);
await writeTable(
  "<!-- heat figures: deno run -A tests/balance/picture.ts -->\n",
  "<!-- end of heat figures -->",
  [
    "| members | use | slowest access at first | median of the last 20 min | nobody too hot from | swaps | pages moved | most of one page |",
    "|---|---|---|---|---|---|---|---|",
    ...heatRows,
  ],
);
