// The points at which the order of writes matters, by name. Tests hand a set of them to a store, which then leaves
// those out; the power-loss replay must notice each one (docs/store.md lists what each of them guards).

export const orderPoints = Object.freeze(
  [
    // reuse of slots
    "clearBeforeReuse",
    "punchBeforeReuse",
    "flushBeforeReuse",
    "checkFreeSlotsAfterCrash",
    "withdrawZeroed",
    // acknowledgements
    "entryBeforeAck",
    "flushOnFlush",
    "flushOnDurable",
    "flushAfterWrites",
    "flushAfterDelete",
    "noteFailedFlush",
    // the two copies of entry blocks
    "alternateCopies",
    "holdEntriesDuringFlush",
    "repairMixedBlocks",
    "flushBetweenCopies",
    "clearLosers",
    "flushAfterClearing",
    // opening, closing, formatting
    "flushAtOpen",
    "dropCacheAtOpen",
    "flushBeforeCleanMark",
    "flushAfterCleanMark",
    "flushAfterWipe",
    "flushBeforeSuperblocks",
    "flushAfterFormat",
  ] as const,
);

export type OrderPoint = (typeof orderPoints)[number];

/** Nothing left out: what every store but a test's is opened with. */
export const omitNothing: ReadonlySet<OrderPoint> = new Set();
