// A private file of a machine whose files are texts by path.

import type { PrivateFile } from "../../lib/base/private_file.ts";

export function memoryFile(files: Map<string, string>, path: string): PrivateFile {
  return {
    path,
    read: () => Promise.resolve(files.get(path) ?? null),
    make: (text) => {
      if (files.has(path)) return Promise.resolve(false);
      files.set(path, text);
      return Promise.resolve(true);
    },
    remove: () => Promise.resolve(void files.delete(path)),
  };
}
