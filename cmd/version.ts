// Both versions: Plimsoll's and that of the Deno it runs on.

import { version } from "../lib/mgmt/version.ts";

export function versionText(): string {
  return `plimsoll ${version} (deno ${Deno.version.deno})`;
}
