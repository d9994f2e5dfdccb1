// The members of `deno task demo`: real processes of this tree, ended by their process ids.

const root = new URL("..", import.meta.url).pathname;
export const memberNames = ["alpha", "beta", "gamma"];
const iqnPrefix = "iqn.2026-11.net.plimsoll.demo";
/** Until a member accepts logins, milliseconds. */
const readyMsMax = 60_000;

/** A port that nobody has now. */
function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}

export class Member {
  #ended = false;
  #stopping = false;

  private constructor(
    readonly name: string,
    readonly config: string,
    readonly portal: string,
    readonly admin: string,
    readonly child: Deno.ChildProcess,
    ended: (why: string) => void,
  ) {
    void child.status.then(({ code }) => {
      this.#ended = true;
      if (!this.#stopping) ended(`Member "${name}" has ended with status ${code}; ${config}.log says why.`);
    });
  }

  /** Starts it and waits until it accepts logins. */
  static async start(directory: string, name: string, ended: (why: string) => void): Promise<Member> {
    const [portal, peer, admin] = [freePort(), freePort(), freePort()].map((port) => `127.0.0.1:${port}`);
    const config = `${directory}/${name}.toml`;
    await Deno.writeTextFile(
      config,
      `[group]
name = "demo"
metadata = "sqlite:group.db"
secret_file = "group.secret"
iqn_prefix = "${iqnPrefix}"
[member]
name = "${name}"
portals = ["${portal}"]
peer = "${peer}"
admin = "${admin}"
state_dir = "${name}"
[[disk]]
path = "${name}/disk0.img"
size = "1GiB"
`,
    );
    const log = await Deno.open(`${config}.log`, { create: true, write: true });
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", `${root}main.ts`, "target", "--config", config],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    void child.stderr.pipeTo(log.writable).catch(() => {});
    const member = new Member(name, config, portal!, admin!, child, ended);
    await member.#until(`http://${admin}/healthz`);
    return member;
  }

  /** Runs a command of this tree's program against the member, which prints to the terminal where it is to be seen. */
  async plimsoll(shown: boolean, ...args: string[]): Promise<void> {
    const { success } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", `${root}main.ts`, ...args, "--config", this.config],
      stdout: shown ? "inherit" : "null",
    }).spawn().status;
    if (!success) throw new Error(`"plimsoll ${args.join(" ")}" has failed.`);
  }

  /** Waits until the member serves the volume. */
  serves(volume: string): Promise<void> {
    return this.#until(`http://${this.admin}/api/volumes/${volume}/route`);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    if (!this.#ended) this.child.kill("SIGTERM");
    await this.child.status;
  }

  async #until(url: string): Promise<void> {
    for (const begin = Date.now(); Date.now() - begin < readyMsMax;) {
      if (this.#ended) throw new Error(`Member "${this.name}" does not start; ${this.config}.log says why.`);
      try {
        const answer = await fetch(url);
        await answer.body?.cancel();
        if (answer.ok) return;
      } catch {
        // Not there yet.
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(
      `Member "${this.name}" is not ready after ${readyMsMax / 1000} s; see ${this.config}.log.`,
    );
  }
}

/** Ends all members, the last first. */
export async function cleanly(members: readonly Member[]): Promise<void> {
  for (const member of [...members].reverse()) await member.stop();
}

/** What to try now. */
export function report(members: readonly Member[]): void {
  const [first, second] = members as [Member, Member];
  const url = (member: Member) => `iscsi://${member.portal}/${iqnPrefix}:shared/0`;
  console.log(`Any member answers for all of it. Write through one, read through another:

  deno task plimsoll bench '${url(first)}' --seconds 3
  qemu-img info '${url(second)}'
  deno task plimsoll member list --config ${first.config}
  deno task plimsoll route show shared --config ${second.config}

Ctrl-C ends the three.`);
}
