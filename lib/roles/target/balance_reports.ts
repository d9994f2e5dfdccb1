// What the admin API tells of load and balance, out of what this member knows.

import type { Opinion } from "../../balance/balancer.ts";
import { averageWork, excessOf } from "../../balance/score.ts";
import type { MemberLoad } from "../../balance/view.ts";
import type { BalanceConfig } from "../../config/config.ts";
import type { BalanceOpinion, BalanceReport, LoadReport } from "../../mgmt/control.ts";
import type { Balancing } from "./balancing.ts";
import type { Forwarding } from "./forwarding.ts";
import type { HeatBalance } from "./heat_balance.ts";
import type { Mover } from "./mover.ts";
import type { Volumes } from "./volumes.ts";

export interface BalanceReportParts {
  readonly member: { readonly name: string };
  readonly balancing: Balancing;
  readonly balanceSettings: BalanceConfig;
  readonly volumes: Pick<Volumes, "served" | "ofImage">;
  readonly mover: Pick<Mover, "batch">;
  readonly heat: HeatBalance;
  readonly forwarding: Pick<Forwarding, "memberOf">;
}

const opinionsMax = 256;
const hundredths = (value: number) => Math.round(value * 100) / 100;

export function loadReport(load: MemberLoad): LoadReport {
  return {
    connections: load.connections,
    sessions: load.sessions,
    expected: load.expected,
    work: Math.round(load.work),
    commandsPerS: Math.round(load.commandsPerS),
    readBytesPerS: Math.round(load.readBytesPerS),
    writtenBytesPerS: Math.round(load.writtenBytesPerS),
    cpu: hundredths(load.cpu),
    queue: hundredths(load.queue),
    latencyUs: Math.round(load.latencyUs),
    accessesPerS: Math.round(load.accessesPerS),
    accessUs: Math.round(load.accessUs),
    linkMbps: [...load.linkMbps],
  };
}

export function balanceReport(parts: BalanceReportParts): BalanceReport {
  const { member, balancing, balanceSettings: settings } = parts;
  const group = balancing.picture.group();
  const opinions = balancing.opinions().slice(0, opinionsMax).map((opinion) => opinionReport(parts, opinion));
  const { workMin, deadBand, settleMs, dwellMs, movesMax, logoutSeconds } = settings;
  return {
    member: member.name,
    policy: group.policy,
    settings: { workMin, deadBand, settleMs, dwellMs, movesMax, logoutSeconds },
    average: Math.round(averageWork(group.members, workMin)),
    members: group.members.map((view) => ({
      name: view.name,
      draining: view.load.draining,
      sessions: view.load.sessions,
      work: Math.round(view.load.work),
      excess: hundredths(excessOf(view, group.members, workMin)),
      accessesPerS: Math.round(view.load.accessesPerS),
      accessUs: Math.round(view.load.accessUs),
    })),
    pages: pagesReport(parts),
    moves: balancing.moves,
    next: opinions.find(({ verdict }) => verdict === "move") ?? null,
    opinions,
  };
}

function pagesReport({ mover, heat, forwarding }: BalanceReportParts): BalanceReport["pages"] {
  const { batch } = mover;
  const { why, hotPages, coldPages } = heat.report();
  const moving = batch === null ? null : {
    volume: batch.volume,
    pages: batch.pages.length,
    to: forwarding.memberOf(batch.to) ?? `(disk ${batch.to})`,
    reason: batch.reason ?? "",
  };
  return { moving, heat: why, hotPages, coldPages };
}

export function opinionReport(parts: BalanceReportParts, opinion: Opinion): BalanceOpinion {
  const { connection, to, score, verdict } = opinion;
  const volume = parts.volumes.ofImage(connection.image);
  return {
    session: connection.id,
    initiator: parts.balancing.picture.meter.find(connection.id)?.initiator ?? "",
    volume: volume?.record.name ?? "",
    to: to.name,
    verdict,
    total: hundredths(score.total),
    terms: score.terms.map(({ name, value, why }) => ({ name, value: hundredths(value), why: why() })),
  };
}
