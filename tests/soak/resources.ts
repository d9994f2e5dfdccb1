// What a process holds, as Linux tells in /proc: resident memory, and descriptors by kind.

export interface Resources {
  /** Its own memory: anonymous and shared. */
  readonly residentBytes: number;
  /** Pages of files that it has mapped: its program, and what it lends of its disks (limits.mappedDiskBytesMax). */
  readonly mappedBytes: number;
  readonly descriptors: Readonly<Record<DescriptorKind, number>>;
  /** Where those of kind "file" lead. */
  readonly files: readonly string[];
}

/** "gauge": /proc/vmstat, which each loop opens with its first write and keeps. */
export const descriptorKinds = [
  "socket",
  "eventfd",
  "eventpoll",
  "io_uring",
  "gauge",
  "file",
  "other",
] as const;
export type DescriptorKind = (typeof descriptorKinds)[number];

export function resourcesOf(pid: number): Resources {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const bytes = (key: string) =>
    1024 * Number(new RegExp(`^${key}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? NaN);
  const descriptors = { socket: 0, eventfd: 0, eventpoll: 0, io_uring: 0, gauge: 0, file: 0, other: 0 };
  const files: string[] = [];
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    try {
      const link = Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
      const kind = kindOf(link);
      descriptors[kind]++;
      if (kind === "file") files.push(link);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // closed meanwhile
    }
  }
  return {
    residentBytes: bytes("RssAnon") + bytes("RssShmem"),
    mappedBytes: bytes("RssFile"),
    descriptors,
    files,
  };
}

export function totalOf({ descriptors }: Resources): number {
  return descriptorKinds.reduce((sum, kind) => sum + descriptors[kind], 0);
}

function kindOf(link: string): DescriptorKind {
  if (link.startsWith("socket:")) return "socket";
  const anonymous = /^anon_inode:\[?(eventfd|eventpoll|io_uring)\]?$/.exec(link);
  if (anonymous !== null) return anonymous[1] as DescriptorKind;
  if (link === "/proc/vmstat") return "gauge";
  return link.startsWith("/") ? "file" : "other";
}

/** Sentences about kinds of which there are more than before. */
export function leaks(before: Resources, after: Resources): string[] {
  const allowed = (kind: DescriptorKind) =>
    kind === "gauge" ? after.descriptors.eventpoll : before.descriptors[kind];
  return descriptorKinds.filter((kind) => after.descriptors[kind] > allowed(kind)).map((kind) => {
    const files = kind === "file" ? `: ${after.files.join(", ")}` : "";
    return `${after.descriptors[kind]} descriptors of kind "${kind}" are open, ${
      allowed(kind)
    } are right${files}`;
  });
}
