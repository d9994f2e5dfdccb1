// Without this, operators would see a wrong map, or none.

import { strict as assert } from "node:assert";
import { routePicture } from "../../cmd/route.ts";
import type { RouteReport } from "../../lib/mgmt/control.ts";
import { recorder, run, Scene } from "./scene.ts";

Deno.test("route show draws a letter a page, and --json is the report", async () => {
  await using scene = new Scene();
  const { code, out } = await run(["route", "show", "vol0", ...scene.access]);
  assert.equal(code, 0);
  assert.equal(
    out,
    [
      "vol0: 4 pages of 4 MiB, epoch 1",
      "",
      "         0  ABBA",
      "",
      "   MEMBER  PAGES  SHARE  WITH DATA",
      "A  alpha   2      50 %   1",
      "B  beta    2      50 %   0",
      "",
      "3 runs, the longest of 2 pages: alpha 1, beta 2, alpha 1",
      "",
    ].join("\n"),
  );
  const json = await run(["route", "show", "vol0", "--json", ...scene.access]);
  assert.deepEqual(JSON.parse(json.out), await scene.control.route("vol0"));
  const missing = await run(["route", "show", "none", ...scene.access]);
  assert.deepEqual([missing.code, missing.out], [1, ""]);
  assert.match(missing.err, /no volume "none"/);
});

Deno.test("a large volume is drawn in at most 16 rows, each letter the home of most of its pages, in colour", () => {
  const report: RouteReport = {
    volume: "big",
    epoch: 9,
    pageBytes: 4 * 1024 ** 2,
    runs: [["alpha", 99_997], ["beta", 6], ["gamma", 99_997]],
    allocated: { alpha: 1, beta: 0, gamma: 2 },
  };
  const { terminal } = recorder({ columns: 60 });
  const rows = routePicture(report, terminal).split("\n").filter((line) => /^ +\d+ {2}[A-C]+$/.test(line));
  assert.ok(rows.length <= 16 && rows.length >= 14, `${rows.length} rows`);
  const letters = rows.map((row) => row.trim().split("  ")[1]).join("");
  assert.match(letters, /^A+C+$/); // six pages of beta are nobody's majority
  assert.ok(Math.abs(letters.indexOf("C") - letters.length / 2) <= 1);
  const { terminal: coloured } = recorder({ colours: true });
  const picture = routePicture(report, coloured);
  assert.ok(picture.includes("\x1b[34mA\x1b[0m") && picture.includes("\x1b[33mC\x1b[0m"));
});
