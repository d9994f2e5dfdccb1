// What the owner and an I/O worker tell each other beside commands (lib/device/task_messages.ts). JSON values.

import type { SharedRules } from "../../base/flow.ts";
import type { Handover, Homecoming } from "../../session/handover.ts";
import type { VendorNotice } from "../../session/nexus.ts";
import type { TargetPortal } from "../../session/target_directory.ts";
import type { SessionOrder } from "../../session/remote_session.ts";

/** A disk that the owner has opened; the descriptor is of the process, and the owner's to close. */
export interface DiskNews {
  readonly kind: "disk";
  readonly index: number;
  readonly name: string;
  readonly descriptor: number;
  readonly sizeBytes: number;
  readonly direct: boolean;
  /** Its number among the counts of flushes and punches under way. */
  readonly exclusives: number;
  readonly slotsAtBytes: number;
  readonly slots: number;
}

export interface UnitNews {
  readonly kind: "unit";
  readonly number: number;
  readonly pageBytes: number;
  readonly blockBytes: number;
  /** The table of places (lib/device/page_places.ts). */
  readonly placesAddress: number;
  readonly placesBytes: number;
}

/** What a thread must know of a session that is to be its own. */
export interface NewSession {
  readonly id: number;
  readonly cell: number;
  readonly unit: number;
  readonly tsih: number;
  readonly relativeTargetPort: number;
  readonly targetName: string;
  readonly targetAlias: string;
}

export interface SessionBegins extends NewSession {
  readonly kind: "begin";
  readonly handover: Handover;
}

/** Room for a session's commands: asked for, or not needed after all. */
export interface SessionRoom {
  readonly kind: "askRoom" | "giveUpRoom";
  readonly id: number;
  readonly firstBurstBytes: number;
}

/** A session for which there is room; what was held of it has been sent before. */
export interface SessionGoesOn extends NewSession {
  readonly kind: "goOn";
  readonly portal: TargetPortal;
  readonly portals: readonly TargetPortal[];
  readonly home: Homecoming;
}

export interface SessionOrdered {
  readonly kind: "order";
  readonly id: number;
  readonly order: SessionOrder;
  readonly reason: string;
  readonly value: number;
}

/** An asynchronous message for the initiator. */
export interface SessionNotified {
  readonly kind: "notify";
  readonly id: number;
  readonly notice: VendorNotice;
}

/** Connections may be lent (docs/short-cut.md). */
export interface LendNews {
  readonly kind: "lend";
  readonly rules: SharedRules;
}

export type ToWorker =
  | DiskNews
  | LendNews
  | UnitNews
  | SessionBegins
  | SessionRoom
  | SessionGoesOn
  | SessionOrdered
  | SessionNotified;

export type ToOwner =
  /** The worker runs; where its data buffers lie. */
  | { readonly kind: "ready"; readonly arena: { readonly address: number; readonly poolBytes: number } }
  | { readonly kind: "replaced"; readonly id: number; readonly stays: boolean }
  | { readonly kind: "room"; readonly id: number; readonly granted: boolean }
  | { readonly kind: "staysThere"; readonly id: number; readonly reason: string }
  /** Nothing of it is here any more; what was held of it has been sent before. */
  | { readonly kind: "comesHome"; readonly id: number; readonly home: Homecoming }
  | { readonly kind: "connectionClosed"; readonly id: number }
  | { readonly kind: "ended"; readonly id: number }
  | { readonly kind: "coldReset"; readonly id: number };
