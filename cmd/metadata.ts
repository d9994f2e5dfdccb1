// The group's metadata as a configuration names it: an SQLite file, or etcd with the certificates to get at it.

import type { Log } from "../lib/base/log.ts";
import type { GroupConfig, MetadataConfig, TlsFiles } from "../lib/config/mod.ts";
import { makeDirectoryOf } from "../lib/io/files.ts";
import type { EtcdTimes, EtcdTls } from "../lib/meta/etcd_endpoints.ts";
import { openEtcdMetadata } from "../lib/meta/etcd_metadata.ts";
import type { Metadata } from "../lib/meta/metadata.ts";
import { openSqliteMetadata } from "../lib/meta/sqlite_metadata.ts";

/** Rejects with an Error that says what to do. */
export async function openMetadata(
  group: GroupConfig & { readonly metadata: MetadataConfig },
  log: Log,
  times: Partial<EtcdTimes> = {},
): Promise<Metadata> {
  const { metadata } = group;
  if (metadata.kind === "etcd") {
    const tls = metadata.tls === null ? null : await readTls(metadata.tls);
    return await openEtcdMetadata({ endpoints: metadata.endpoints, tls, group: group.name, log, times });
  }
  await makeDirectoryOf(metadata.path);
  return await openSqliteMetadata(metadata.path);
}

async function readTls({ ca, cert, key }: TlsFiles): Promise<EtcdTls> {
  const [caText, certText, keyText] = await Promise.all([
    readPem("ca", ca, "CERTIFICATE"),
    readPem("cert", cert, "CERTIFICATE"),
    readPem("key", key, "PRIVATE KEY"),
  ]);
  return { ca: caText!, cert: certText!, key: keyText! };
}

async function readPem(name: string, path: string | null, kind: string): Promise<string | null> {
  if (path === null) return null;
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new Error(`Cannot read ${name} of metadata_tls "${path}": ${why}. Correct [group] metadata_tls.`);
  }
  if (new RegExp(`-----BEGIN [A-Z ]*${kind}-----`).test(text)) return text;
  throw new Error(
    `Cannot use ${name} of metadata_tls "${path}": there is no ${kind} in it. Give a file in PEM form.`,
  );
}
