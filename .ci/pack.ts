// `deno task pack`: makes dist/plimsoll, one executable file, from this deno, the sources and the production packages of
// node_modules. No network and no bundler; needs tar, gzip and sha256sum. docs/packaging.md says what the file does.

import { copySources, productionPackages, programVersion, root } from "./sources.ts";

const output = new URL("dist/plimsoll", root);

async function run(command: string, args: string[], options: Deno.CommandOptions = {}): Promise<string> {
  const result = await new Deno.Command(command, { ...options, args, stdout: "piped", stderr: "piped" })
    .output();
  if (!result.success) {
    throw new Error(`"${command} ${args.join(" ")}" failed: ${new TextDecoder().decode(result.stderr)}`);
  }
  return new TextDecoder().decode(result.stdout);
}

async function fileBytes(path: string): Promise<number> {
  const info = await Deno.lstat(path);
  if (!info.isDirectory) return info.size;
  let sum = 4096;
  for await (const entry of Deno.readDir(path)) sum += await fileBytes(`${path}/${entry.name}`);
  return sum;
}

/** Everything the archive holds, in a new directory; sorted names and fixed times make equal inputs equal files. */
async function stage(directory: string): Promise<void> {
  await Deno.copyFile(Deno.execPath(), `${directory}/deno`);
  await Deno.chmod(`${directory}/deno`, 0o755);
  await copySources(directory);
  const packages = await productionPackages();
  for (const p of packages) await p.copyTo(`${directory}/node_modules/${p.name}`);
  console.log(`packages: ${packages.map((p) => `${p.name}@${p.version}`).join(" ")}`);
}

async function header(archive: string, staged: string): Promise<string> {
  const template = await Deno.readTextFile(new URL("pack_header.sh", import.meta.url));
  const sha256 = (await run("sha256sum", [archive])).slice(0, 64);
  const values: Record<string, string> = {
    VERSION: programVersion,
    DENO: Deno.version.deno,
    MACHINE: Deno.build.arch,
    NAME: `${programVersion}-${sha256.slice(0, 16)}`,
    SHA256: sha256,
    LINES: String(template.split("\n").length),
    MEBIBYTES: String(Math.ceil(await fileBytes(staged) / 2 ** 20 * 1.05)),
  };
  return template.replace(/@([A-Z0-9]+)@/g, (_, key: string) => {
    const value = values[key];
    if (value === undefined) {
      throw new Error(`.ci/pack_header.sh names @${key}@, which .ci/pack.ts does not know.`);
    }
    return value;
  });
}

async function pack(work: string): Promise<void> {
  const staged = `${work}/tree`;
  await Deno.mkdir(staged);
  await stage(staged);
  const archive = `${work}/archive`;
  await run("tar", [
    ...[
      "--sort=name",
      "--mtime=@0",
      "--owner=0",
      "--group=0",
      "--numeric-owner",
      "--format=gnu",
      "--mode=u=rwX,go=rX",
    ],
    ...["--use-compress-program=gzip -6 -n", "-cf", archive, "-C", staged, "."],
  ]);
  const part = `${work}/plimsoll`;
  await Deno.writeTextFile(part, await header(archive, staged));
  await Deno.writeFile(part, (await Deno.open(archive)).readable, { append: true });
  await Deno.chmod(part, 0o755);
  await Deno.mkdir(new URL(".", output), { recursive: true });
  await Deno.rename(part, output);

  // The proof: it runs from an empty directory with nothing in its environment.
  const told = await run(output.pathname, ["--version"], {
    cwd: work,
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin", CACHE_DIRECTORY: `${work}/cache` },
  });
  if (!told.includes(programVersion)) throw new Error(`dist/plimsoll --version printed "${told.trim()}".`);
  console.log(`dist/plimsoll: ${((await Deno.stat(output)).size / 1e6).toFixed(1)} MB; ${told.trim()}`);
}

await Deno.mkdir(new URL("dist/", root), { recursive: true });
// Beside the result, so that the rename stays on one file system.
const work = await Deno.makeTempDir({ dir: new URL("dist/", root).pathname, prefix: ".pack-" });
try {
  await pack(work);
} finally {
  await Deno.remove(work, { recursive: true });
}
