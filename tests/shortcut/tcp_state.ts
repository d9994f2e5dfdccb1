// The state of a connection whose client has nothing under way, as it travels between members.

import type { TcpState } from "../../lib/base/flow.ts";

export const state: TcpState = {
  client: { hostname: "10.1.2.3", port: 40_000 },
  portal: { hostname: "10.1.2.4", port: 3260 },
  sendUnacknowledged: 1000,
  sendNext: 1000,
  receiveNext: 2000,
  segmentBytes: 1448,
  sendWindowShift: 7,
  receiveWindowShift: 7,
  timestamps: true,
  selectiveAcknowledgements: true,
  timestamp: 1,
  sendWindow: 65_536,
  sendWindowMax: 65_536,
  sendWindowSequence: 2000,
  receiveWindow: 65_536,
  receiveWindowSequence: 2000,
  unacknowledged: new Uint8Array(0),
};
