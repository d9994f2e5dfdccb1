// iscsi://[user@]host[:port]/target[/lun], as libiscsi and QEMU write it.

import { parseIscsiName } from "../lib/wire/iscsi/names.ts";
import { usageError } from "./terminal.ts";

export interface BenchUrl {
  readonly user: string | null;
  /** A name or a numeric address, without brackets. */
  readonly host: string;
  readonly port: number;
  readonly targetName: string;
  readonly lun: number;
}

const form = "Give iscsi://HOST:PORT/TARGET/LUN, such as " +
  "iscsi://127.0.0.1:3260/iqn.2026-11.net.plimsoll.demo:vol0/0.";
/** Peripheral device addressing (SAM-5 §4.7.7.2). */
const lunMax = 255;

/** Throws CommandError. The text may have a secret in it, so no message repeats it whole. */
export function parseBenchUrl(text: string): BenchUrl {
  const bad = (why: string) => usageError(`Cannot use the URL: ${why}. ${form}`);
  const scheme = /^iscsi:\/\//i.exec(text);
  if (scheme === null) throw bad('it does not begin with "iscsi://"');
  const rest = text.slice(scheme[0].length);
  const slash = rest.indexOf("/");
  if (slash < 0) throw bad("it names no target");
  const authority = rest.slice(0, slash);
  const at = authority.lastIndexOf("@");
  const user = at < 0 ? null : userOf(authority.slice(0, at));
  const place = /^(?:\[([0-9a-f:.]+)\]|([^\s:[\]]+))(?::([0-9]{1,5}))?$/i.exec(authority.slice(at + 1));
  if (place === null) throw bad("its host and port are not HOST, HOST:PORT or [IPV6]:PORT");
  const port = place[3] === undefined ? 3260 : Number(place[3]);
  if (port < 1 || port > 65535) throw bad(`${port} is no port`);
  const path = /^([^/?#]+)(?:\/([^/]*))?\/?$/.exec(rest.slice(slash + 1));
  if (path === null) throw bad("behind the host it has not TARGET or TARGET/LUN");
  const target = parseIscsiName(decoded(path[1]!) ?? path[1]!, "tolerant");
  if (target.kind === "invalid") throw bad(`its target "${path[1]}" ${target.reason}`);
  const lunText = path[2] === undefined || path[2] === "" ? "0" : path[2];
  const lun = /^[0-9]{1,3}$/.test(lunText) ? Number(lunText) : Infinity;
  if (lun > lunMax) throw bad(`"${lunText}" is no LUN from 0 to ${lunMax}`);
  return { user, host: place[1] ?? place[2]!, port, targetName: target.name, lun };
}

/** libiscsi takes user%password; a command line is seen by every user of the machine. */
function userOf(text: string): string {
  const user = decoded(text);
  if (user === null || /[%:]/.test(user)) {
    throw usageError(
      "Cannot use the URL: it has a secret in it. Give the user only, and the secret with --chap-secret-file FILE.",
    );
  }
  if (!/^[\x21-\x7e]{1,223}$/.test(user)) {
    throw usageError("Cannot use the URL: what is in front of @ is no CHAP user name.");
  }
  return user;
}

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
