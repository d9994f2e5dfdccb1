// Load reports as bytes and back. What comes is bounded: a report that lies can be wrong, but neither large nor absurd.

import { limits } from "../base/limits.ts";
import {
  LoadReportClient,
  loadReportClientBytes,
  LoadReportHeader,
  loadReportHeaderBytes,
  LoadReportPortal,
  loadReportPortalBytes,
  LoadReportShare,
  loadReportSharesAt,
  loadReportSharesMax,
  loadReportVersion,
  wholeShare,
} from "../wire/scsi/load_report.ts";
import type { ClientLoad, MemberLoad, Shares } from "./view.ts";

export interface LoadReport extends MemberLoad {
  /** Grows from report to report of one process. */
  readonly sequence: number;
}

/** Work a second beyond which nothing is believed: ten times what the fastest machine has been seen to do. */
const workMax = 20_000_000;
const bytesPerSMax = 1e12;
const u32Max = 0xffff_ffff;

export function encodeReport(report: LoadReport): Uint8Array<ArrayBuffer> {
  const portals = report.linkMbps.slice(0, limits.portalsMax);
  const clients = report.clients.slice(0, limits.reportClientsMax);
  const bytes = new Uint8Array(
    loadReportHeaderBytes + portals.length * loadReportPortalBytes + clients.length * loadReportClientBytes,
  );
  const view = new DataView(bytes.buffer);
  const h = LoadReportHeader;
  h.version.set(view, 0, loadReportVersion);
  h.draining.set(view, 0, report.draining ? 1 : 0);
  h.tag.set(view, 0, report.tag);
  h.sequence.set(view, 0, report.sequence >>> 0);
  h.connections.set(view, 0, whole(report.connections, 0xffff));
  h.sessions.set(view, 0, whole(report.sessions, 0xffff));
  h.expected.set(view, 0, whole(report.expected, 0xffff));
  h.cpuPermille.set(view, 0, whole(report.cpu * 1000, 1000));
  h.work.set(view, 0, whole(report.work, u32Max));
  h.commandsPerS.set(view, 0, whole(report.commandsPerS, u32Max));
  h.readBytesPerS.set(view, 0, whole(report.readBytesPerS, bytesPerSMax));
  h.writtenBytesPerS.set(view, 0, whole(report.writtenBytesPerS, bytesPerSMax));
  h.queueThousandths.set(view, 0, whole(report.queue * 1000, u32Max));
  h.latencyUs.set(view, 0, whole(report.latencyUs, u32Max));
  h.accessUs.set(view, 0, whole(report.accessUs, u32Max));
  h.accessesPerS.set(view, 0, whole(report.accessesPerS, u32Max));
  h.portals.set(view, 0, portals.length);
  h.clients.set(view, 0, clients.length);
  let at = loadReportHeaderBytes;
  for (const linkMbps of portals) {
    LoadReportPortal.linkMbps.set(view, at, whole(linkMbps, u32Max));
    at += loadReportPortalBytes;
  }
  for (const client of clients) {
    encodeClient(view, at, client);
    at += loadReportClientBytes;
  }
  return bytes;
}

function encodeClient(
  view: DataView,
  at: number,
  { client, image, sessions, work, served }: ClientLoad,
): void {
  const c = LoadReportClient;
  const shares = [...served].toSorted((a, b) => b[1] - a[1]).slice(0, loadReportSharesMax);
  c.keyHigh.set(view, at, parseInt(client.slice(0, 8), 16));
  c.keyLow.set(view, at, parseInt(client.slice(8, 16), 16));
  c.image.set(view, at, image);
  c.sessions.set(view, at, whole(sessions, 0xffff));
  c.work.set(view, at, whole(work, u32Max));
  c.shares.set(view, at, shares.length);
  shares.forEach(([tag, share], i) => {
    LoadReportShare.tag.set(view, at + loadReportSharesAt + 4 * i, tag);
    LoadReportShare.share.set(view, at + loadReportSharesAt + 4 * i, whole(share * wholeShare, wholeShare));
  });
}

/** Null: the bytes are no load report of this version. */
export function decodeReport(bytes: Uint8Array): LoadReport | null {
  if (bytes.length < loadReportHeaderBytes) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const h = LoadReportHeader;
  const portals = h.portals.get(view, 0);
  const clients = h.clients.get(view, 0);
  const length = loadReportHeaderBytes + portals * loadReportPortalBytes + clients * loadReportClientBytes;
  if (h.version.get(view, 0) !== loadReportVersion || length !== bytes.length) return null;
  if (portals > limits.portalsMax || clients > limits.reportClientsMax || h.tag.get(view, 0) === 0) {
    return null;
  }
  const clientsAt = loadReportHeaderBytes + portals * loadReportPortalBytes;
  const decoded = Array.from(
    { length: clients },
    (_, i) => decodeClient(view, clientsAt + i * loadReportClientBytes),
  );
  return {
    tag: h.tag.get(view, 0),
    sequence: h.sequence.get(view, 0),
    draining: h.draining.get(view, 0) === 1,
    connections: Math.min(h.connections.get(view, 0), limits.connectionsMax),
    sessions: Math.min(h.sessions.get(view, 0), limits.sessionsMax),
    expected: Math.min(h.expected.get(view, 0), limits.intentsMax),
    cpu: Math.min(h.cpuPermille.get(view, 0), 1000) / 1000,
    work: Math.min(h.work.get(view, 0), workMax),
    commandsPerS: Math.min(h.commandsPerS.get(view, 0), workMax),
    readBytesPerS: Math.min(h.readBytesPerS.get(view, 0), bytesPerSMax),
    writtenBytesPerS: Math.min(h.writtenBytesPerS.get(view, 0), bytesPerSMax),
    queue: Math.min(
      h.queueThousandths.get(view, 0) / 1000,
      limits.sessionsMax * limits.commandsPerSessionMax,
    ),
    latencyUs: h.latencyUs.get(view, 0),
    accessUs: h.accessUs.get(view, 0),
    accessesPerS: Math.min(h.accessesPerS.get(view, 0), workMax),
    linkMbps: Array.from(
      { length: portals },
      (_, i) => LoadReportPortal.linkMbps.get(view, loadReportHeaderBytes + i * loadReportPortalBytes),
    ),
    clients: decoded,
  };
}

function decodeClient(view: DataView, at: number): ClientLoad {
  const c = LoadReportClient;
  const hex = (word: number) => word.toString(16).padStart(8, "0");
  const served = new Map<number, number>();
  const count = Math.min(c.shares.get(view, at), loadReportSharesMax);
  for (let i = 0; i < count; i++) {
    const shareAt = at + loadReportSharesAt + 4 * i;
    served.set(LoadReportShare.tag.get(view, shareAt), LoadReportShare.share.get(view, shareAt) / wholeShare);
  }
  return {
    client: hex(c.keyHigh.get(view, at)) + hex(c.keyLow.get(view, at)),
    image: c.image.get(view, at),
    sessions: Math.min(c.sessions.get(view, at), limits.sessionsMax),
    work: Math.min(c.work.get(view, at), workMax),
    served: bounded(served),
  };
}

/** Shares that add up to more than all are made to fit. */
function bounded(served: ReadonlyMap<number, number>): Shares {
  const all = [...served.values()].reduce((sum, share) => sum + share, 0);
  return new Map([...served].map(([tag, share]) => [tag, share / Math.max(1, all)]));
}

/** A whole number from 0 to `max`; what is no number is 0. */
function whole(value: number, max: number): number {
  return Number.isFinite(value) ? Math.min(max, Math.max(0, Math.round(value))) : 0;
}
