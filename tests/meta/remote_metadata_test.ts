// Without this, the metadata that the data-plane worker sees could differ from what the driver in the main thread does.

import { decodeMessage, encodeMessage } from "../../lib/io/native/channel_message.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import type { Metadata } from "../../lib/meta/metadata.ts";
import { type MetadataNews, RemoteMetadata, serveMetadata } from "../../lib/meta/remote_metadata.ts";
import { metadataContract } from "./contract.ts";
import { StandingClock } from "./standing_clock.ts";

/** A value as it comes out of a channel: copied, through bytes. */
function carried<T>(value: T): T {
  const parts = encodeMessage(1, 1, value);
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return decodeMessage(bytes).value as T;
}

/** An error as it comes out of a channel: another class, with the name of the old one. */
function carriedError(error: Error): Error {
  return Object.assign(new Error(error.message), { name: error.name });
}

function remote(driver: Metadata): Metadata {
  const metadata: RemoteMetadata = new RemoteMetadata(async (method, args) => {
    await null;
    try {
      const handler = handlers[method] as (args: unknown) => unknown;
      return carried(await handler(carried(args))) as never;
    } catch (error) {
      throw carriedError(error as Error);
    }
  });
  const handlers = serveMetadata(driver, (what, args) => {
    const news = metadata.news[what] as (args: MetadataNews[typeof what]["args"]) => null;
    queueMicrotask(() => news(carried(args)));
  });
  const close = metadata.close.bind(metadata);
  metadata.close = async () => {
    await close();
    await driver.close();
  };
  return metadata;
}

metadataContract("remote", () => {
  const clock = new StandingClock();
  const store = new MemoryMetadataStore(clock, 10);
  return Promise.resolve({
    connect: () => Promise.resolve(remote(store.connect())),
    leaseMs: 1_500,
    pass: (ms) => Promise.resolve(clock.advance(ms)),
    forget: async (metadata) => {
      for (let i = 0; i < 11; i++) {
        await metadata.commit([], [{ kind: "put", key: "filler", value: Uint8Array.of(i) }]);
      }
    },
    end: () => Promise.resolve(store.end()),
  });
});
