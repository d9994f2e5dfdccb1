// What the host agent needs of the machine: programs to run, and small files to read and write. lib/io/host_system.ts does it.

export type ProgramEnd =
  | { readonly kind: "ended"; readonly code: number; readonly stdout: string; readonly stderr: string }
  /** There is no such program. */
  | { readonly kind: "missing" }
  /** It has been killed: its time was over, or it printed more than limits.hostOutputBytesMax. */
  | { readonly kind: "killed"; readonly why: string };

export interface HostSystem {
  /** Of the process: root. */
  readonly privileged: boolean;
  /** Runs a program without a shell and with nothing to read; never rejects. */
  run(program: string, args: readonly string[], timeMsMax: number): Promise<ProgramEnd>;
  /** Null: it is not there, or cannot be read. */
  readText(path: string): Promise<string | null>;
  /** Names in a directory; none when it is not there. */
  list(path: string): Promise<readonly string[]>;
  /** Replaces a file's text, or makes the file, readable by its owner only. Rejects with the system's error. */
  writeText(path: string, text: string): Promise<void>;
  /** Removes a file that may be there. */
  remove(path: string): Promise<void>;
}
