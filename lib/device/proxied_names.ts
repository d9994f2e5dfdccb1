// How the unit's record names what an initiator-proxy speaks for, so that no proxy is taken for another: its initiators by
// their name and its host's, its process by a run of its host. A host is the number that its sessions' names end in.

/** What a host's initiators are called behind their own name. */
export function hostSuffix(host: string): string {
  return `@${host}`;
}

/** The run of a proxy's process; `start` is another at each. */
export function proxyRun(host: string, start: string): string {
  return `proxy.${host}.${start}`;
}

/** The host whose proxy's run it is; null: it is a member's. */
export function hostOfRun(run: string): string | null {
  return /^proxy\.([0-9a-f]+)\./.exec(run)?.[1] ?? null;
}

/** The host of an entitled session, by its initiator's name. */
export function hostOfInitiator(initiatorName: string): string {
  return initiatorName.slice(initiatorName.lastIndexOf(".") + 1);
}
