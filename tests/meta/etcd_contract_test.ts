// Without this, metadata in etcd could differ from what the rest of Plimsoll relies on. One etcd for the whole suite, and
// a group of its own for every test.

import { openEtcdMetadata } from "../../lib/meta/etcd_metadata.ts";
import { interop } from "../interop/tools.ts";
import { metadataContract } from "./contract.ts";
import { EtcdServer } from "./etcd_server.ts";

let server: Promise<EtcdServer> | null = null;
let groups = 0;

metadataContract("etcd", async () => {
  const etcd = await (server ??= EtcdServer.start().then(([only]) => only!));
  const group = `contract-${++groups}`;
  return {
    connect: () => openEtcdMetadata({ endpoints: [etcd.url], tls: null, group }),
    leaseMs: 4_000, // of a real clock: what is renewed every second must survive a busy machine
    pass: async (ms) => {
      await new Promise((resolve) => setTimeout(resolve, ms));
      if (ms >= 4_000) await etcd.leasesSettled();
    },
    forget: () => etcd.compact(),
    end: () => Promise.resolve(),
  };
}, {
  test: (name, body) => interop(name, ["etcd"], body),
  end: async () => await (await server)?.stop(),
});
