// A configuration that has been found right: everything resolved, numbers as numbers, paths as seen from the caller.

import type { HeatSettings } from "../balance/heat_plan.ts";
import type { BalanceSettings, LoginPolicy } from "../balance/view.ts";
import type { SocketAddress } from "../base/network.ts";

export type Config = MemberConfig | ProxyConfig | AgentConfig;

/** For `plimsoll target`. */
export interface MemberConfig {
  readonly role: "member";
  readonly file: string;
  readonly group: GroupConfig & { readonly metadata: MetadataConfig };
  readonly member: MemberSettings;
  readonly disks: readonly DiskConfig[];
  readonly volumes: readonly VolumeConfig[];
  readonly balance: BalanceConfig;
}

/** For `plimsoll initiator-proxy`. */
export interface ProxyConfig {
  readonly role: "proxy";
  readonly file: string;
  readonly group: GroupConfig;
  readonly proxy: ProxySettings;
}

/** For `plimsoll host-agent`. */
export interface AgentConfig {
  readonly role: "agent";
  readonly file: string;
  readonly group: GroupConfig;
  readonly agent: AgentSettings;
}

export interface GroupConfig {
  readonly name: string;
  /** Null in the file of a proxy or host agent only: these ask the group's members. */
  readonly metadata: MetadataConfig | null;
  readonly secretFile: string;
  readonly iqnPrefix: string;
  readonly pageBytes: number;
  /** Address of the whole group. */
  readonly portal: SocketAddress | null;
  /** What holds until somebody sets another policy at run time. */
  readonly loginPolicy: LoginPolicy;
}

export interface BalanceConfig extends BalanceSettings, HeatSettings {
  /** How often load is measured and told. */
  readonly reportMs: number;
  /** What a client is given to log out in before it is moved. */
  readonly logoutSeconds: number;
  /** Initiators that cannot follow a redirect, patterns with `*`. */
  readonly noRedirect: readonly string[];
}

export type MetadataConfig =
  | { readonly kind: "sqlite"; readonly path: string }
  | { readonly kind: "etcd"; readonly endpoints: readonly string[]; readonly tls: TlsFiles | null };

export interface TlsFiles {
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
}

export interface MemberSettings {
  readonly name: string;
  readonly portals: readonly SocketAddress[];
  readonly peer: SocketAddress;
  readonly admin: SocketAddress;
  readonly stateDir: string;
  /** "auto": the native engine where the machine has what it needs, else the portable one. */
  readonly engine: "auto" | "portable";
  /** Threads of the data plane, where the native engine runs; "auto": one a core. */
  readonly workers: "auto" | number;
  /** "auto": answers of other members take the short cut where the machine can (docs/short-cut.md). */
  readonly shortCut: "auto" | "off";
  /** Smallest answer that takes it, bytes. */
  readonly shortCutBytes: number;
}

export interface DiskConfig {
  readonly path: string;
  /** Null: the whole block device. */
  readonly sizeBytes: number | null;
  /** Past the page cache (O_DIRECT); the native engine only. */
  readonly direct: boolean;
  /** Line of the file, for messages. */
  readonly line: number;
}

export interface VolumeConfig {
  readonly name: string;
  readonly sizeBytes: number;
  readonly blockBytes: 512 | 4096;
  readonly writeCache: boolean;
  /** Null: not given. */
  readonly initiators: readonly string[] | null;
  readonly chap: ChapConfig | null;
  readonly mutual: ChapConfig | null;
  /** Line of the file, for messages. */
  readonly line: number;
}

export interface ChapConfig {
  readonly user: string;
  readonly secret: SecretSource;
}

/** A file's secret is `chapSecretOfFile` of its text. */
export type SecretSource =
  | { readonly kind: "inline"; readonly secret: string }
  | { readonly kind: "file"; readonly path: string };

export interface AgentSettings {
  readonly groupPortals: readonly SocketAddress[];
  readonly volumes: readonly string[];
  /** Null: it answers nobody. */
  readonly admin: SocketAddress | null;
  readonly stateDir: string;
  /** The session over which it learns is dead when it says nothing for so long. */
  readonly pathTimeoutMs: number;
}

export interface ProxySettings {
  readonly listen: SocketAddress;
  readonly groupPortals: readonly SocketAddress[];
  readonly volumes: readonly string[];
  readonly admin: SocketAddress;
  readonly stateDir: string;
  /** Who may log in to the proxy, as for a volume. */
  readonly initiators: readonly string[] | null;
  readonly chap: ChapConfig | null;
  readonly mutual: ChapConfig | null;
  /** False: commands go to any member, as without routes. */
  readonly routeTable: boolean;
  /** A path that says nothing for so long is dead. */
  readonly pathTimeoutMs: number;
}
