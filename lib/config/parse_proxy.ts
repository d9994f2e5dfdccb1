// [proxy] and [agent]: what runs beside an initiator.

import { limits } from "../base/limits.ts";
import type { AgentSettings, ProxySettings } from "./config.ts";
import { nameExpected, nameProblem } from "./name.ts";
import {
  address,
  addressExpected,
  adminExpected,
  loopbackAddress,
  pathExpected,
  pathIn,
  readPortals,
  refuseTwice,
} from "./parse_group.ts";
import { readAccess } from "./parse_volume.ts";
import { type Check, right, type TableReader, unless, wrong } from "./reader.ts";

const pathTimeoutMsDefault = 1_000;
const pathTimeoutExpected = "milliseconds from 200 to 30000";

/** Null when it is not there, or wrong. */
export function readProxy(root: TableReader, required: boolean): ProxySettings | null {
  const proxy = root.inner("proxy", "a table: [proxy]");
  if (proxy === null) return null;
  const listen = proxy.requiredText("listen", addressExpected, address);
  const groupPortals = readPortals(proxy, "group_portals");
  const volumes = readVolumeNames(proxy);
  const admin = proxy.requiredText("admin", adminExpected, loopbackAddress);
  const stateDir = proxy.requiredText("state_dir", pathExpected, pathIn(proxy));
  const access = readAccess(proxy);
  const routeTable = proxy.flag("route_table");
  const pathTimeout = proxy.quantity("path_timeout_ms", pathTimeoutExpected, pathTimeoutOf);
  proxy.finish();
  if (!required || listen === null || volumes === null || admin === null || stateDir === null) return null;
  return {
    listen: listen.value,
    groupPortals,
    volumes,
    admin: admin.value,
    stateDir: stateDir.value,
    ...access,
    routeTable: routeTable?.value ?? true,
    pathTimeoutMs: pathTimeout?.value ?? pathTimeoutMsDefault,
  };
}

/** Null when it is not there, or wrong. */
export function readAgent(root: TableReader, required: boolean): AgentSettings | null {
  const agent = root.inner("agent", "a table: [agent]");
  if (agent === null) return null;
  const groupPortals = readPortals(agent, "group_portals");
  const volumes = readVolumeNames(agent);
  const admin = agent.text("admin", adminExpected, loopbackAddress);
  const stateDir = agent.requiredText("state_dir", pathExpected, pathIn(agent));
  const pathTimeout = agent.quantity("path_timeout_ms", pathTimeoutExpected, pathTimeoutOf);
  agent.finish();
  if (!required || volumes === null || stateDir === null) return null;
  const pathTimeoutMs = pathTimeout?.value ?? pathTimeoutMsDefault;
  return { groupPortals, volumes, admin: admin?.value ?? null, stateDir: stateDir.value, pathTimeoutMs };
}

/** Null when there are none. */
function readVolumeNames(table: TableReader): string[] | null {
  const volumes = table.texts("volumes", nameExpected, limits.volumesMax, unless(nameProblem));
  if (volumes === null) {
    if (!table.has("volumes")) table.missing("volumes", '["vol0"]');
    return null;
  }
  if (volumes.value.length === 0) table.complaints.complain(volumes, "it is empty", "a volume at least");
  refuseTwice(table, volumes.value, (name) => name);
  return volumes.value.map(({ value }) => value);
}

function pathTimeoutOf(given: string | number): Check<number> {
  const fits = typeof given === "number" && Number.isInteger(given) && given >= 200 && given <= 30_000;
  return fits ? right(given) : wrong("it is no such time");
}
