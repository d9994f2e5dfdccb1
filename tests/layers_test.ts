// Without this, layers rot: DESIGN.md's total order of directories, checked over every import of the tree.

import { strict as assert } from "node:assert";

const layers = [
  "base",
  "wire",
  "extent",
  "io",
  "session",
  "meta",
  "route",
  "store",
  "device",
  "forward",
  "shortcut",
  "balance",
  "config",
  "mgmt",
  "roles",
  "cmd",
  "main.ts",
]; // deno-fmt-ignore

const root = new URL("..", import.meta.url);

function layerOf(path: string): string {
  const parts = path.split("/");
  return parts[0] === "lib" ? parts[1]! : parts[0]!;
}

async function* sources(directory: URL, prefix: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(directory)) {
    if (entry.isDirectory) yield* sources(new URL(`${entry.name}/`, directory), `${prefix}${entry.name}/`);
    else if (entry.name.endsWith(".ts")) yield `${prefix}${entry.name}`;
  }
}

interface Import {
  readonly specifier: string;
  readonly computed: boolean;
}

/** Imports, exports-from, dynamic imports and `new URL("…", import.meta.url)` of one file; type imports count. */
function importsOf(text: string): Import[] {
  const found: Import[] = [];
  const code = text.replace(/^\s*\/\/.*$/gm, "");
  for (const m of code.matchAll(/\b(?:import|export)\b[^;"'`()]*?\bfrom\s*["']([^"']+)["']/g)) {
    found.push({ specifier: m[1]!, computed: false });
  }
  for (const m of code.matchAll(/^\s*import\s*["']([^"']+)["']/gm)) {
    found.push({ specifier: m[1]!, computed: false });
  }
  for (const m of code.matchAll(/\bimport\(\s*([^)]*)\)/g)) {
    const literal = /^["']([^"']+)["']/.exec(m[1]!);
    found.push({ specifier: literal?.[1] ?? m[1]!, computed: literal === null });
  }
  for (const m of code.matchAll(/new URL\(\s*["'](\.[^"']+\.ts)["']\s*,\s*import\.meta\.url/g)) {
    found.push({ specifier: m[1]!, computed: false });
  }
  return found;
}

/** Complaints about one file; empty when it is in order. */
function complaints(path: string, text: string): string[] {
  const own = layerOf(path);
  const rank = layers.indexOf(own);
  if (rank < 0) return [`${path}: "${own}" is no layer; DESIGN.md lists ${layers.join(" < ")}.`];
  const out: string[] = [];
  for (const { specifier, computed } of importsOf(text)) {
    if (computed) out.push(`${path}: import(${specifier}) is computed; only literal imports can be checked.`);
    if (!specifier.startsWith(".")) continue;
    const target = new URL(specifier, `file:///${path}`).pathname.slice(1);
    const other = layerOf(target);
    if (layers.indexOf(other) > rank) {
      out.push(`${path}: imports ${target}, but "${own}" lies below "${other}": turn the dependency round.`);
    }
    if (layers.indexOf(other) < 0) out.push(`${path}: imports ${target}, which is in no layer.`);
  }
  return out;
}

/** Layers that may touch the world (STYLE.md, rule 4), and the files outside them that may as well. */
const worldly = ["io", "cmd", "main.ts"];
const worldlyFiles = [/^lib\/meta\/(sqlite|etcd)[^/]*\.ts$/, /^lib\/mgmt\/http[^/]*\.ts$/];
const world =
  /\bDeno\.(?!test|errors)\w+|\bfetch\(|\bsetTimeout\(|\bsetInterval\(|\bDate\.now\(|\bMath\.random\(|\bperformance\.now\(|\bcrypto\.getRandomValues\(/;

function worldComplaints(path: string, text: string): string[] {
  if (worldly.includes(layerOf(path)) || worldlyFiles.some((r) => r.test(path))) return [];
  const lines = text.split("\n");
  return lines.flatMap((line, i) => {
    if (/^\s*(\/\/|\*|\/\*)/.test(line)) return [];
    const hit = world.exec(line) ??
      /from "node:(fs|net|dgram|http|https|child_process|os|worker_threads)/.exec(line);
    return hit
      ? [`${path}:${i + 1}: touches the world (${hit[0]}); take a Clock, RandomSource, Network or Disk.`]
      : [];
  });
}

async function tree(): Promise<string[]> {
  const files = ["main.ts"];
  for (const d of ["lib", "cmd"]) {
    for await (const f of sources(new URL(`${d}/`, root), `${d}/`)) files.push(f);
  }
  return files;
}

Deno.test("imports go down the layers only", async () => {
  const out: string[] = [];
  for (const file of await tree()) {
    out.push(...complaints(file, await Deno.readTextFile(new URL(file, root))));
  }
  assert.deepEqual(out, []);
});

Deno.test("only io, the metadata drivers, the HTTP server, cmd and main.ts touch the world", async () => {
  const out: string[] = [];
  for (const file of await tree()) {
    out.push(...worldComplaints(file, await Deno.readTextFile(new URL(file, root))));
  }
  assert.deepEqual(out, []);
});

Deno.test("the layer test itself finds a wrong edge, a computed import and a touch of the world", () => {
  assert.equal(complaints("lib/wire/x.ts", `import type { A } from "../device/mod.ts";`).length, 1);
  assert.equal(complaints("lib/wire/x.ts", `export { A } from "../base/mod.ts";`).length, 0);
  assert.equal(complaints("lib/wire/x.ts", "const m = await import(`../device/${name}.ts`);").length, 1);
  assert.equal(
    complaints("lib/meta/x.ts", `new Worker(new URL("../roles/a_worker.ts", import.meta.url).href)`).length,
    1,
  );
  assert.equal(worldComplaints("lib/session/x.ts", "const t = Date.now();").length, 1);
});
