// What the process of a member leaves for its next one in a file: the sessions that came by its portals and are elsewhere.

import type { FlowPoint } from "../base/flow.ts";
import { limits } from "../base/limits.ts";
import type { SocketAddress } from "../base/network.ts";
import { addressNumber, addressText } from "../wire/scsi/short_cut.ts";
import type { NexusEnds, SteeredFlow } from "./steering.ts";

const version = 1;

export interface HandedOver {
  /** The process that has left it. */
  readonly run: string;
  readonly flows: readonly SteeredFlow[];
}

export function formatHandedOver({ run, flows }: HandedOver): string {
  return JSON.stringify({
    version,
    run,
    flows: flows.map(({ nexus, state, owner, holders }) => ({
      nexus: { initiatorName: nexus.initiatorName, isid: nexus.isid, targetName: nexus.targetName },
      state: {
        client: state.client,
        portal: state.portal,
        sendUnacknowledged: state.sendUnacknowledged,
        receiveNext: state.receiveNext,
      },
      owner,
      holders: Object.fromEntries(holders),
    })),
  });
}

/** Null: it is no such file, or of another version. */
export function parseHandedOver(text: string): HandedOver | null {
  let file: Shape<{ version: unknown; run: unknown; flows: unknown }>;
  try {
    file = JSON.parse(text);
  } catch {
    return null;
  }
  if (file?.version !== version || !isName(file.run) || !Array.isArray(file.flows)) return null;
  if (file.flows.length > limits.connectionsMax) return null;
  const flows = file.flows.map(flowOf);
  return flows.includes(null) ? null : { run: file.run, flows: flows as SteeredFlow[] };
}

/** Whatever a file may have in the place of an object with these fields. */
type Shape<T> = Partial<T> | null | undefined;

function flowOf(value: Shape<Record<keyof SteeredFlow, unknown>>): SteeredFlow | null {
  const nexus = value?.nexus as Shape<Record<keyof NexusEnds, unknown>>;
  const state = value?.state as Shape<Record<keyof FlowPoint, unknown>>;
  const owner = value?.owner;
  const holders = value?.holders;
  if (!isName(nexus?.initiatorName) || !isName(nexus.targetName) || !isNumber(nexus.isid, 2 ** 48)) {
    return null;
  }
  if (!isAddress(state?.client) || !isAddress(state.portal)) return null;
  if (!isNumber(state.sendUnacknowledged, 2 ** 32) || !isNumber(state.receiveNext, 2 ** 32)) return null;
  if (typeof holders !== "object" || holders === null || !Object.values(holders).every(isName)) return null;
  if (!isName(owner) || !Object.hasOwn(holders, owner)) return null;
  const { initiatorName, isid, targetName } = nexus;
  const { client, portal, sendUnacknowledged, receiveNext } = state;
  return {
    nexus: { initiatorName, isid, targetName },
    state: { client, portal, sendUnacknowledged, receiveNext },
    owner,
    holders: new Map(Object.entries(holders)),
  };
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= 255;
}

function isNumber(value: unknown, end: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < end;
}

function isAddress(value: unknown): value is SocketAddress {
  const address = value as Shape<Record<keyof SocketAddress, unknown>>;
  const hostname = address?.hostname;
  return typeof hostname === "string" && addressText(addressNumber(hostname)) === hostname &&
    isNumber(address!.port, 65_536);
}
