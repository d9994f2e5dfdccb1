// The store of one disk (DESIGN.md "Store", docs/store.md).

export { DiskError } from "./disk_calls.ts";
export { formatDisk, type FormattedStore, type NewStore } from "./format_disk.ts";
export { type StoreIdentity } from "./format.ts";
export { type ExpectedIdentity, openStore, type OpenStoreOptions, StoreOpenError } from "./open.ts";
export { type SlotBoard } from "./slot_board.ts";
export { type CloseReport, Store, type StoreUsage } from "./store.ts";
export type { OrderPoint } from "./order.ts";
export { inspectDisk, type Inspection } from "./inspect.ts";
export { type CheckOptions, type CheckReport, checkStore, type Finding } from "./check.ts";
