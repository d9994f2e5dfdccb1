// Run by sqlite_process_test.ts as a process of its own: `deno run -A sqlite_process.ts TASK FILE NAME`.

import { openSqliteMetadata } from "../../lib/meta/sqlite_metadata.ts";
import { decodeNumber, encodeNumber } from "../../lib/meta/records.ts";

const [task, file, name] = Deno.args as [string, string, string];
const metadata = await openSqliteMetadata(file);

if (task === "count") {
  // Raises "counter" 25 times by compare-and-set.
  for (let i = 0; i < 25;) {
    const read = await metadata.get("counter");
    const value = encodeNumber((read === null ? 0 : decodeNumber(read.value)) + 1);
    const result = await metadata.commit([{ key: "counter", modRevision: read?.modRevision ?? 0 }], [
      { kind: "put", key: "counter", value },
      { kind: "put", key: `seen/${name}`, value: encodeNumber(i + 1) },
    ]);
    if (result.succeeded) i++;
  }
  await metadata.close();
} else if (task === "write") {
  // Writes a pair of keys per number for ever, and says each number once it is acknowledged.
  const lease = await metadata.grantLease(3_600_000);
  console.log(`lease ${lease}`);
  for (let i = 1;; i++) {
    const value = encodeNumber(i);
    await metadata.commit([], [
      { kind: "put", key: `left/${name}`, value },
      { kind: "put", key: `right/${name}`, value },
      { kind: "put", key: `number/${i}`, value, leaseId: lease },
    ]);
    console.log(i);
  }
} else {
  throw new Error(`unknown task ${task}`);
}
