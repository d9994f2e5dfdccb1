// What is wrong with a configuration: where, what is there, and what would be right. Never contains a secret.

export interface Problem {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column?: number;
  /** "member.portals[1]", "volume[0].chap.secret"; empty where the file as a whole is meant. */
  readonly key: string;
  /** As the file has it, shortened; empty where there is none or it may be a secret. */
  readonly value: string;
  /** What would be right: completes "Expected …". */
  readonly expected: string;
  /** The whole as a sentence or two. */
  readonly message: string;
}

/** "appliance.toml:12:9: Cannot use …": the form that editors and terminals turn into links. */
export function formatProblem(problem: Problem): string {
  const column = problem.column === undefined ? "" : `:${problem.column}`;
  return `${problem.file}:${problem.line}${column}: ${problem.message}`;
}
