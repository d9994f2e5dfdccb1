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

Deno.test("route export prints dmsetup's commands, and --json the same apart", async () => {
  // Lost without it: a device-mapper table with the members in another order than the mappings.
  await using scene = new Scene();
  const { code, out } = await run([
    "route",
    "export",
    "vol0",
    "--device",
    "/dev/MEMBER-VOLUME",
    ...scene.access,
  ]);
  assert.equal(code, 0);
  const lines = out.split("\n").filter((line) => !line.startsWith("#"));
  const { sizeBytes } = (await scene.control.status()).volumes.find(({ name }) => name === "vol0")!;
  assert.deepEqual(lines, [
    `dmsetup create vol0 --table "0 ${sizeBytes / 512} switch 2 8192 0 /dev/alpha-vol0 0 /dev/beta-vol0 0"`,
    "dmsetup message vol0 0 set_region_mappings 0:0 :1 :1 :0",
    "",
  ]);
  const json = JSON.parse((await run(["route", "export", "vol0", "--json", ...scene.access])).out);
  assert.deepEqual(json.members, ["alpha", "beta"]);
  assert.match(json.table, /\/dev\/mapper\/vol0-alpha 0/);
});
