// Short cuts between members, and sessions that move with their connections. docs/short-cut.md.

export { Borrower } from "./borrower.ts";
export { EntryRestart } from "./entry_restart.ts";
export { everyFlow } from "./flow_key.ts";
export { formatHandedOver, type HandedOver, parseHandedOver } from "./handed_over.ts";
export { Lender } from "./lender.ts";
export { type MoveOutcome, SessionMover } from "./session_mover.ts";
export { type SteeredFlow, Steering } from "./steering.ts";
export { Takeovers } from "./takeovers.ts";
export { Egress, worthShortCut } from "./worth.ts";
