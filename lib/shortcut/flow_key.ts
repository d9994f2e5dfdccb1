// Names of clients' connections, and where they are.

import { formatSocketAddress } from "../base/network.ts";
import type { FlowEnds } from "../wire/scsi/session_move.ts";

export function flowKey({ client, portal }: FlowEnds): string {
  return `${formatSocketAddress(client)} ${formatSocketAddress(portal)}`;
}

/** In a message that steers: the session has ended; and nobody knows who has it. */
export const Owner = Object.freeze({ nobody: "", unknown: "?" });

/** In a message that ends: every session that came by the sender. */
export const everyFlow: FlowEnds = {
  client: { hostname: "0.0.0.0", port: 0 },
  portal: { hostname: "0.0.0.0", port: 0 },
};
