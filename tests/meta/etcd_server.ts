// A real etcd (Debian package etcd-server) on loopback: one member or a cluster, that can be killed, paused and started
// again with what it has on disk. And a relay in front of one that loses what a network loses.

import { limits } from "../../lib/base/limits.ts";
import { freePort } from "../interop/target_process.ts";

export interface EtcdFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export class EtcdServer {
  #child: Deno.ChildProcess | null = null;

  private constructor(
    private readonly name: string,
    private readonly directory: string,
    readonly port: number,
    private readonly peerPort: number,
    private readonly cluster: string,
    private readonly tls: EtcdFiles | null,
    private readonly hostname = "127.0.0.1",
  ) {}

  /** `members` of one cluster, each below a directory of its own that `stop` removes. */
  static async start(members = 1, tls: EtcdFiles | null = null): Promise<EtcdServer[]> {
    const ports = Array.from({ length: members * 2 }, () => freePort());
    const peers = Array.from({ length: members }, (_, i) => `m${i}=http://127.0.0.1:${ports[members + i]}`);
    const servers: EtcdServer[] = [];
    for (let i = 0; i < members; i++) {
      const directory = await Deno.makeTempDir({ prefix: "plimsoll-etcd-" });
      servers.push(new EtcdServer(`m${i}`, directory, ports[i]!, ports[members + i]!, peers.join(), tls));
    }
    try {
      for (const server of servers) server.#spawn();
      await Promise.all(servers.map((server) => server.#ready()));
      return servers;
    } catch (error) {
      for (const server of servers) await server.stop();
      throw error;
    }
  }

  /** One with the usual ports, on a machine of its own (tests/interop/namespaces.ts): the one that this process is in. */
  static async startAt(hostname: string): Promise<EtcdServer> {
    const directory = await Deno.makeTempDir({ prefix: "plimsoll-etcd-" });
    const server = new EtcdServer("m0", directory, 2379, 2380, "m0=http://127.0.0.1:2380", null, hostname);
    try {
      server.#spawn();
      await server.#ready();
      return server;
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  get url(): string {
    return `${this.tls === null ? "http" : "https"}://${this.hostname}:${this.port}`;
  }

  /** A SIGSTOP has stopped it when this returns: the system stops one thread after the other. */
  signal(signal: Deno.Signal): void {
    const { pid } = this.#child!;
    this.#child!.kill(signal);
    if (signal !== "SIGSTOP") return;
    const stopped = () =>
      [...Deno.readDirSync(`/proc/${pid}/task`)].every(({ name }) =>
        / T /.test(Deno.readTextFileSync(`/proc/${pid}/task/${name}/stat`).slice(0, 64))
      );
    for (let i = 0; !stopped() && i < 10_000; i++) { /* soon */ }
  }

  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#child?.status;
    this.#child = null;
  }

  async restart(): Promise<void> {
    this.#spawn();
    await this.#ready();
  }

  async stop(): Promise<void> {
    await this.kill();
    await Deno.remove(this.directory, { recursive: true });
  }

  /** A call of its API; only of a server without TLS. */
  async call(path: string, body: unknown): Promise<Record<string, unknown>> {
    const response = await fetch(`${this.url}${path}`, { method: "POST", body: JSON.stringify(body) });
    return await response.json();
  }

  /** Forgets what happened before now. */
  async compact(): Promise<void> {
    const { header } = await this.call("/v3/kv/range", { key: "AA==" }) as { header: { revision: string } };
    await this.call("/v3/kv/compaction", { revision: header.revision });
  }

  /** Until etcd has deleted the leases whose time is over. */
  async leasesSettled(): Promise<void> {
    for (;;) {
      const { leases } = await this.call("/v3/lease/leases", {}) as { leases?: { ID: string }[] };
      const left = await Promise.all(
        (leases ?? []).map(({ ID }) => this.call("/v3/lease/timetolive", { ID })),
      );
      if (left.every(({ TTL }) => Number(TTL ?? 0) > 0)) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  #spawn(): void {
    const tls = this.tls === null ? [] : [
      ...["--client-cert-auth", `--trusted-ca-file=${this.tls.ca}`],
      ...[`--cert-file=${this.tls.cert}`, `--key-file=${this.tls.key}`],
    ];
    this.#child = new Deno.Command("etcd", {
      args: [
        `--name=${this.name}`,
        `--data-dir=${this.directory}/data`,
        `--listen-client-urls=${this.url}`,
        `--advertise-client-urls=${this.url}`,
        `--listen-peer-urls=http://127.0.0.1:${this.peerPort}`,
        `--initial-advertise-peer-urls=http://127.0.0.1:${this.peerPort}`,
        `--initial-cluster=${this.cluster}`,
        `--initial-cluster-token=${this.cluster}`, // two clusters of tests have two cluster ids
        "--heartbeat-interval=50",
        "--election-timeout=500",
        "--log-level=error",
        ...tls,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  async #ready(): Promise<void> {
    for (let i = 0;; i++) {
      if (await this.#answers()) return;
      if (i === 1200) throw new Error("etcd does not answer after 60 s");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async #answers(): Promise<boolean> {
    try {
      if (this.tls === null) return (await this.call("/v3/kv/range", { key: "AA==" })).header !== undefined;
      (await Deno.connect({ hostname: "127.0.0.1", port: this.port })).close();
      return true;
    } catch {
      return false;
    }
  }
}

/** Carries bytes between a client and `port`; what is lost on the way is the test's to say. */
export class Relay {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 }) as Deno.TcpListener;
  readonly #connections = new Set<Deno.Conn>();
  readonly #held: { to: number; bytes: Uint8Array }[] = [];
  readonly #port: number;
  /**
   * Asked for each piece a client sends: "pass", "cut" the connection before it arrives, let it arrive and cut
   * the connection before the "answer" comes back, or "hold" it, cutting, to deliver it later.
   */
  fate: (request: string) => "pass" | "cut" | "answer" | "hold" = () => "pass";
  /** Nothing goes through, and nobody is told. */
  stalled = false;

  constructor(port: number) {
    this.#port = port;
    void this.#accept();
  }

  get url(): string {
    return `http://127.0.0.1:${this.#listener.addr.port}`;
  }

  get held(): number {
    return this.#held.length;
  }

  /** Every connection ends now. */
  cut(): void {
    for (const connection of this.#connections) shut(connection);
    this.#connections.clear();
  }

  /** What was held arrives now; resolves with the answers' texts. */
  async deliver(): Promise<string[]> {
    const answers: string[] = [];
    for (const { to, bytes } of this.#held.splice(0)) {
      using connection = await Deno.connect({ hostname: "127.0.0.1", port: to });
      await writeAll(connection, bytes);
      const buffer = new Uint8Array(65_536);
      const length = await connection.read(buffer);
      answers.push(new TextDecoder().decode(buffer.subarray(0, length ?? 0)));
    }
    return answers;
  }

  close(): void {
    this.#listener.close();
    this.cut();
  }

  async #accept(): Promise<void> {
    for (;;) {
      let client: Deno.Conn;
      try {
        client = await this.#listener.accept();
      } catch {
        return; // closed
      }
      this.#connections.add(client);
      void this.#serve(client);
    }
  }

  async #serve(client: Deno.Conn): Promise<void> {
    let server: Deno.Conn;
    try {
      server = await Deno.connect({ hostname: "127.0.0.1", port: this.#port });
    } catch {
      return shut(client);
    }
    this.#connections.add(server);
    const state = { muted: false };
    const end = () => [client, server].forEach(shut);
    await Promise.all([
      this.#requests(client, server, state).finally(end),
      this.#answers(server, client, state).finally(end),
    ]);
    this.#connections.delete(client);
    this.#connections.delete(server);
  }

  async #requests(client: Deno.Conn, server: Deno.Conn, state: { muted: boolean }): Promise<void> {
    for await (const bytes of pieces(client)) {
      if (this.stalled) continue;
      const fate = this.fate(new TextDecoder().decode(bytes));
      if (fate === "cut") return;
      if (fate === "hold") return void this.#held.push({ to: this.#port, bytes });
      state.muted ||= fate === "answer";
      await writeAll(server, bytes).catch(() => {});
    }
  }

  async #answers(server: Deno.Conn, client: Deno.Conn, state: { muted: boolean }): Promise<void> {
    for await (const bytes of pieces(server)) {
      if (this.stalled) continue;
      if (state.muted) return;
      await writeAll(client, bytes).catch(() => {});
    }
  }
}

async function* pieces(connection: Deno.Conn): AsyncGenerator<Uint8Array> {
  for (;;) {
    const buffer = new Uint8Array(limits.metadataTransactionBytesMax * 2);
    const length = await connection.read(buffer).catch(() => null);
    if (length === null) return;
    yield buffer.subarray(0, length);
  }
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

function shut(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // closed already
  }
}
