// What a new process of a member must know before its first login: whether another member still has sessions that came by the
// portals of the process before (docs/short-cut.md, "The whole connection").

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { limits } from "../../base/limits.ts";
import type { PrivateFile } from "../../base/private_file.ts";
import type { Messenger } from "../../forward/mod.ts";
import { everyFlow, type HandedOver, parseHandedOver } from "../../shortcut/mod.ts";
import { MessageKind, MessageRefusal } from "../../wire/scsi/member_message.ts";
import { encodeFlow } from "../../wire/scsi/session_move.ts";
import type { Members } from "./members.ts";

export interface PortalClaimParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly messenger: Pick<Messenger, "send">;
  readonly members: Pick<Members, "find" | "fellows" | "run">;
}

const retryMs = 200;
const noLoginsYet =
  "no logins yet: a member that is up has not said that it has no session left of this member's last run; " +
  "see that the two can reach each other";

/**
 * Resolves when no member that serves has a session left that came by this member's portals, to a process that is no more;
 * those that this process has resumed stay. A member that is starting too has none.
 */
export async function claimPortals(parts: PortalClaimParts): Promise<void> {
  const serving = parts.members.fellows().filter(({ live }) => live !== null && live.state !== "joining");
  await Promise.all(serving.map(({ record, live }) => claimFrom(parts, record.name, live!.run)));
}

function claimFrom(
  { messenger, members, clock, log }: PortalClaimParts,
  member: string,
  run: string,
): Promise<void> {
  const body = encodeFlow({ ...everyFlow, text: members.run });
  let told = false;
  return new Promise((resolve) => {
    const ask = () => {
      if (members.find(member)?.run !== run) return resolve(); // with it they have gone
      messenger.send(member, MessageKind.moveEnd, body, limits.moveMessageMs, (outcome) => {
        // A member without the means has no such sessions.
        const none = outcome.kind === "refused" && outcome.reason === MessageRefusal.unknownKind;
        if (outcome.kind === "taken" || none) return resolve();
        if (!told) log.warn(noLoginsYet, { member });
        told = true;
        clock.after(retryMs, ask);
      });
    };
    ask();
  });
}

/** What the last process has left, nothing when it cannot be read; null: it has not. The file is gone then: it is taken up once. */
export async function takeHandedOver(file: PrivateFile, log: Log): Promise<HandedOver | null> {
  let reason = "the file is damaged, or another version's";
  try {
    const text = await file.read();
    if (text === null) return null;
    await file.remove();
    const left = parseHandedOver(text);
    if (left !== null) return left;
  } catch (error) {
    reason = (error as Error).message;
  }
  log.warn(
    "connections that the last process has handed over are not taken up: their initiators log in again",
    {
      file: file.path,
      reason,
    },
  );
  return { run: "", flows: [] };
}
