// What the program consists of: its source files and the npm packages that they import. Used by pack and compile.

import config from "../deno.json" with { type: "json" };

export const root = new URL("..", import.meta.url);
export const programVersion: string = config.version;

async function* filesBelow(directory: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(new URL(directory, root))) {
    const path = `${directory}${entry.name}`;
    if (entry.isDirectory) yield* filesBelow(`${path}/`);
    else if (entry.isFile) yield path;
  }
}

/** main.ts and every file of lib/ and cmd/, relative to the root. */
export async function programFiles(): Promise<string[]> {
  const files = ["main.ts"];
  for (const directory of ["lib/", "cmd/"]) {
    for await (const file of filesBelow(directory)) files.push(file);
  }
  return files.sort();
}

/** Sources and a deno.json without tasks and test-only imports. */
export async function copySources(directory: string): Promise<void> {
  for (const file of await programFiles()) {
    const to = `${directory}/${file}`;
    await Deno.mkdir(to.slice(0, to.lastIndexOf("/")), { recursive: true });
    await Deno.copyFile(new URL(file, root), to);
  }
  const used = await importedPackages();
  const imports = Object.fromEntries(Object.entries(config.imports).filter(([name]) => used.has(name)));
  await Deno.writeTextFile(
    `${directory}/deno.json`,
    JSON.stringify(
      { name: config.name, version: config.version, nodeModulesDir: "manual", imports },
      null,
      2,
    ) + "\n",
  );
}

/** Keys of deno.json's imports that the program names. */
export async function importedPackages(): Promise<Set<string>> {
  const used = new Set<string>();
  for (const file of await programFiles()) {
    if (!file.endsWith(".ts")) continue;
    const text = await Deno.readTextFile(new URL(file, root));
    for (
      const m of text.matchAll(/\b(?:from|import)\s*\(?\s*["']((?:@[^"'/]+\/)?[^"'./@][^"'/]*)[^"']*["']/g)
    ) {
      if (m[1]! in config.imports) used.add(m[1]!);
    }
  }
  return used;
}

export class Package {
  constructor(readonly name: string, readonly version: string, readonly directory: string) {}

  /** Copies what runs and its license; types, maps and sources of compiled files stay out. */
  async copyTo(to: string, from = this.directory): Promise<void> {
    await Deno.mkdir(to, { recursive: true });
    for await (const entry of Deno.readDir(from)) {
      if (entry.isDirectory) {
        if (entry.name !== "node_modules") await this.copyTo(`${to}/${entry.name}`, `${from}/${entry.name}`);
      } else if (/licen[cs]e/i.test(entry.name) || /\.([cm]?js|json|wasm)$/.test(entry.name)) {
        await Deno.copyFile(`${from}/${entry.name}`, `${to}/${entry.name}`);
      }
    }
  }
}

/** As Node resolves `name` from a package: its own node_modules, then those of the directories above. */
async function resolve(name: string, from: string): Promise<string> {
  for (let at = from; at.length > 1; at = at.slice(0, at.lastIndexOf("/"))) {
    try {
      return await Deno.realPath(`${at}/node_modules/${name}`);
    } catch (e) {
      if (!(e instanceof Deno.errors.NotFound)) throw e;
    }
  }
  throw new Error(`Cannot find package "${name}", which "${from}" needs: run "deno install" first.`);
}

/** The packages that the program imports, and theirs. One version of each, as they are laid out flat. */
export async function productionPackages(): Promise<Package[]> {
  const found = new Map<string, Package>();
  const visit = async (name: string, from: string): Promise<void> => {
    const directory = await resolve(name, from);
    const manifest = JSON.parse(await Deno.readTextFile(`${directory}/package.json`));
    const known = found.get(name);
    if (known !== undefined) {
      if (known.version === manifest.version) return;
      throw new Error(`Cannot pack "${name}" in two versions, ${known.version} and ${manifest.version}.`);
    }
    found.set(name, new Package(name, manifest.version, directory));
    for (const dependency of Object.keys(manifest.dependencies ?? {})) await visit(dependency, directory);
  };
  for (const name of await importedPackages()) await visit(name, root.pathname.replace(/\/$/, ""));
  return [...found.values()].sort((a, b) => a.name < b.name ? -1 : 1);
}
