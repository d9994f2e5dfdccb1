// Assertions: our own mistakes end the process (STYLE.md, rule 13). Everybody else's mistakes are values.

/** A broken invariant of Plimsoll itself. Never caught, except by the process's last handler. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

/** Throws {@link AssertionError} when `condition` is false. `message` says which invariant broke. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** For the branch that cannot be reached; makes the compiler check that a switch is exhaustive. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable value: ${String(value)}`);
}
