// `deno task demo`: three members of one group on loopback, each with a raw disk file, and a volume over all three. Shows the
// map of its pages, says what to try, and serves until Ctrl-C. Everything lies in a new temporary directory and goes with it.
//
//   deno task demo [--keep] [--once]     --keep leaves the directory; --once ends after the map (for CI)

import { cleanly, Member, memberNames, report } from "./demo_members.ts";

const keep = Deno.args.includes("--keep");
const once = Deno.args.includes("--once");
const unknown = Deno.args.filter((a) => a !== "--keep" && a !== "--once");
if (unknown.length > 0) {
  console.error(`There is no option "${unknown[0]}". Usage: deno task demo [--keep] [--once]`);
  Deno.exit(2);
}

const directory = await Deno.makeTempDir({ prefix: "plimsoll-demo." });
const members: Member[] = [];
const stopped = new Promise<void>((resolve) => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, resolve);
});
/** Resolves with why the demo must end when a member ends by itself. */
const broken = Promise.withResolvers<string>();

async function end(code: number): Promise<never> {
  await cleanly(members);
  if (keep || code !== 0) console.log(`What the members had is in ${directory}`);
  else await Deno.remove(directory, { recursive: true });
  Deno.exit(code);
}

try {
  for (const name of memberNames) {
    const member = await Member.start(directory, name, (why) => broken.resolve(why));
    members.push(member);
    console.log(`${name}: portal ${member.portal}, admin ${member.admin}`);
  }
  const [first] = members as [Member];
  const size = "768MiB";
  await first.plimsoll(
    false,
    "volume",
    "create",
    "shared",
    "--size",
    size,
    "--members",
    memberNames.join(","),
  );
  for (const member of members) await member.serves("shared");
  console.log(`\nVolume "shared", ${size} over ${memberNames.join(", ")}:\n`);
  await first.plimsoll(true, "route", "show", "shared");
  report(members);
} catch (error) {
  console.error((error as Error).message);
  await end(1);
}
if (once) await end(0);
const why = await Promise.race([stopped.then(() => ""), broken.promise]);
if (why !== "") console.error(why);
else console.log("\nstopping");
await end(why === "" ? 0 : 1);
