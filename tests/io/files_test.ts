// Without this, a start could end with an error that names neither the file nor what to do.

import { strict as assert } from "node:assert";
import { readTextIfThere } from "../../lib/io/files.ts";

Deno.test("a file that is not there is null; one that cannot be read is told by its name", async () => {
  const directory = await Deno.makeTempDir();
  try {
    assert.equal(await readTextIfThere(`${directory}/none`), null);
    await assert.rejects(readTextIfThere(directory), (error: Error) => {
      assert.ok(error.message.startsWith(`Cannot read "${directory}": `), error.message);
      assert.match(error.message, /Name a file that this user may read\.$/);
      return true;
    });
  } finally {
    await Deno.remove(directory);
  }
});
