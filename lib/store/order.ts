// The points at which the order of writes matters, by name. Tests hand a set of them to a store, which then leaves
// those out; the power-loss replay must notice each one (docs/store.md lists what each of them guards).

export const orderPoints = Object.freeze(
  [
    "punchBeforeReuse",
    "flushBeforeReuse",
    "clearBeforeReuse",
    "entryBeforeAck",
    "flushOnFlush",
    "flushOnDurable",
    "flushAfterWrites",
    "flushAtOpen",
    "checkFreeSlotsAfterCrash",
    "flushBeforeCleanMark",
    "flushAfterCleanMark",
    "alternateCopies",
    "holdEntriesDuringFlush",
    "repairMixedBlocks",
    "clearLosers",
    "newestGenerationWins",
  ] as const,
);

export type OrderPoint = (typeof orderPoints)[number];

/** Nothing left out: what every store but a test's is opened with. */
export const omitNothing: ReadonlySet<OrderPoint> = new Set();
