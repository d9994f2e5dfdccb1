// What the admin API asks of a running host agent. Implemented by the agent role; agent_server.ts knows nothing else.

export interface AgentReport {
  role: "host-agent";
  group: string;
  /** Name of the machine. */
  host: string;
  version: string;
  uptimeMs: number;
  /** Why it is not ready though its volumes may be, complete sentences. */
  problems: string[];
  volumes: AgentVolumeReport[];
}

/** A volume, and its device on this machine. */
export interface AgentVolumeReport {
  name: string;
  /** Why it is not ready, complete sentences; none: its device is there and in step with the members. */
  problems: string[];
  /** What failed last, whether or not it has been mended. */
  lastProblem: { message: string; agoMs: number } | null;
  /** Of the route table and the plan that were learned last; null: nothing was. */
  learned: {
    epoch: number;
    sizeBytes: number;
    pageBytes: number;
    writeCache: boolean;
    writeProtected: boolean;
    /** Since a member has said that this is how it is. */
    agoMs: number;
  } | null;
  /** Null: this agent keeps none yet. */
  device: {
    /** "/dev/mapper/plimsoll-vol0" */
    path: string;
    sizeBytes: number;
    readOnly: boolean;
    /** Of the route table that the kernel was told last in full; null: of none yet. */
    epoch: number | null;
  } | null;
  /** By member that has pages. */
  legs: AgentLegReport[];
  /** Logins of the kernel that failed and are tried again. */
  logins: { portal: string; member: string; reason: string }[];
}

/** What the switch sends to one member: a multipath map. */
export interface AgentLegReport {
  member: string;
  /** "plimsoll-vol0:alpha" */
  map: string;
  /** Regions of the switch that go there; a region is a page. */
  regions: number;
  /** `home`: over a path of the member; `fallback`: over other members', which forward; `waiting`, `failing`: there is none. */
  state: "home" | "fallback" | "waiting" | "failing";
  paths: {
    /** Whose it is; "": not known any more. */
    member: string;
    portal: string;
    /** "sda" */
    disk: string;
    /** As the kernel said last, some 2 s ago at most. */
    state: "active" | "failed";
  }[];
}

export interface AgentControl {
  report(): Promise<AgentReport>;
}

/** Sentences; none: it is well. */
export function problemsOf({ problems, volumes }: AgentReport): string[] {
  return [...problems, ...volumes.flatMap((volume) => volume.problems)];
}
