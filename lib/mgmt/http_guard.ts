// Who may talk to the admin API (DESIGN.md, "Fixed interfaces"). Pure decisions; http_server.ts asks them.
// A web page in the operator's browser can send requests to a loopback address too: Host and Origin keep it out
// (DNS rebinding, cross-site requests), the token keeps other users of the machine from changing anything.

import { createHash, timingSafeEqual } from "node:crypto";
import { formatSocketAddress, type SocketAddress } from "../base/network.ts";

/** Values of the Host header that mean the address this server is bound to. */
export function acceptedHosts(bound: SocketAddress): ReadonlySet<string> {
  const hosts = new Set([formatSocketAddress(bound), `localhost:${bound.port}`]);
  if (bound.port === 80) {
    for (const host of [...hosts]) hosts.add(host.slice(0, -":80".length)); // clients leave a default port out
  }
  return hosts;
}

/** Why a request is refused before anything of it is looked at; null when it may go on. */
export function hostProblem(
  hosts: ReadonlySet<string>,
  host: string | null,
  origin: string | null,
): string | null {
  const expected = [...hosts].join('" or "');
  const pages = [...hosts].map((h) => `http://${h}`);
  if (host === null || !hosts.has(host.toLowerCase())) {
    return `Refused a request for Host "${
      host ?? ""
    }": this server is "${expected}". Use that address in the URL.`;
  }
  if (origin !== null && !pages.includes(origin.toLowerCase())) {
    return `Refused a request from Origin "${origin}": only pages of "${
      pages.join('" or "')
    }" may call this server.`;
  }
  return null;
}

/** True when the Authorization header carries the token. Takes the same time wherever a wrong one differs. */
export function tokenMatches(token: string, authorization: string | null): boolean {
  const match = /^Bearer +(\S+) *$/i.exec(authorization ?? "");
  const given = createHash("sha256").update(match?.[1] ?? "").digest();
  const wanted = createHash("sha256").update(token).digest();
  return timingSafeEqual(given, wanted) && match !== null;
}
