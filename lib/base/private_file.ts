// A small file that only its owner may read (lib/io/files.ts does the work).

export interface PrivateFile {
  /** For messages. */
  readonly path: string;
  /** Its text, or null when there is none. */
  read(): Promise<string | null>;
  /** Makes it, private and durable, with `text`. False: it is there already and was left alone. */
  make(text: string): Promise<boolean>;
  /** Takes it away; rejects when it is not there. */
  remove(): Promise<void>;
}
