// An initiator-proxy in the test's process, and initiators on its machine.

import { formatSocketAddress, type SocketAddress } from "../../lib/base/network.ts";
import { parseConfig, type ProxyConfig } from "../../lib/config/mod.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { Proxy } from "../../lib/roles/proxy/proxy.ts";
import { type ClientOptions, InitiatorClient } from "../../lib/session/initiator/client.ts";
import { freePort } from "../interop/target_process.ts";
import { type Group, settled } from "./group.ts";
import { Lun } from "./scsi.ts";
import { iqnPrefix, type World } from "./world.ts";

/** A proxy for vol0 of a group in the test's process. It uses the system's clock, since it waits for sockets. */
export class TestProxy implements AsyncDisposable {
  readonly log: string[] = [];
  readonly #clients: InitiatorClient[] = [];
  readonly config: ProxyConfig;
  proxy!: Proxy;

  constructor(
    private readonly secret: string,
    portals: readonly SocketAddress[],
    extra = "",
    readonly host: Uint8Array = new Uint8Array(16).fill(0x42),
  ) {
    const portal = JSON.stringify(formatSocketAddress(portals[0]!));
    const text = `[group]\nname = "test"\nsecret_file = "/d/s"\niqn_prefix = "${iqnPrefix}"\n` +
      `[proxy]\nlisten = "127.0.0.1:${freePort()}"\ngroup_portals = [${portal}]\nvolumes = ["vol0"]\n` +
      `admin = "127.0.0.1:1"\nstate_dir = "/d/p"\n${extra}`;
    const parsed = parseConfig(text, "/d/proxy.toml");
    if (!parsed.ok || parsed.config.role !== "proxy") throw new Error(JSON.stringify(parsed));
    this.config = parsed.config;
  }

  static async of(group: Group, extra = "", host?: Uint8Array): Promise<TestProxy> {
    const [alpha] = group.worlds as [World];
    const proxy = new TestProxy(alpha.files.get("/d/group.secret")!.trim(), alpha.ports, extra, host);
    await proxy.start();
    await settled(() => Promise.resolve(proxy.proxy.control.ready()));
    await settled(async () =>
      (await proxy.volume()).paths.every(({ state, initiatorPort }) => {
        return state === "open" && initiatorPort !== 255;
      })
    );
    return proxy;
  }

  async start(): Promise<void> {
    const at = (level: string) => (message: string, fields: unknown = {}) => {
      this.log.push(`${level} ${message} ${JSON.stringify(fields)}`);
    };
    this.proxy = await Proxy.start(this.config, {
      clock: systemClock,
      random: systemRandom,
      network: new PortableNetwork(),
      log: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") },
      secret: this.secret,
      host: this.host,
      hostName: "host7",
      readSecretFile: () => Promise.resolve("a secret of a file"),
      engine: { name: "portable", reason: "a test" },
    });
  }

  async volume() {
    return (await this.proxy.control.status()).proxied![0]!;
  }

  async login(options: Partial<ClientOptions> = {}): Promise<Lun> {
    const client = await InitiatorClient.connect(new PortableNetwork(), systemClock, systemRandom, {
      portal: this.config.proxy.listen,
      initiatorName: "iqn.2026-11.net.plimsoll.test:local",
      targetName: `${iqnPrefix}:vol0`,
      ...options,
    });
    this.#clients.push(client);
    const lun = new Lun(client);
    await lun.attentions();
    return lun;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.session.abort("the test is over");
    await this.proxy?.stop();
  }
}
