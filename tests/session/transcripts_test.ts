// Without this, any change of an answer on the wire would go unseen: each file in transcripts/ is a conversation with
// the target, line by line. After a wanted change: UPDATE=1 deno test -A tests/session/transcripts_test.ts, and read the diff.

import { runTranscript } from "./transcript.ts";

const directory = new URL("transcripts/", import.meta.url);
for (const entry of [...Deno.readDirSync(directory)].sort((a, b) => a.name.localeCompare(b.name))) {
  Deno.test(`transcript: ${entry.name}`, () => runTranscript(new URL(entry.name, directory)));
}
