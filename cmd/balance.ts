// plimsoll balance: how clients are spread over the members, why, and by what policy.

import { Argument, type Command } from "commander";
import { loginPolicies } from "../lib/balance/view.ts";
import type { BalanceOpinion, BalanceReport } from "../lib/mgmt/control.ts";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatCount, table } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { printJson, type Terminal } from "./terminal.ts";

export function registerBalance(program: Command, terminal: Terminal): void {
  const balance = program.command("balance").description("spread clients over the members");
  const show = addGroupOptions(balance.command("show"))
    .description("show the members' load, and for each session of this member why it stays or goes")
    .action(async (options: GroupOptions) => {
      const report = await (await openGroup(options)).balance();
      if (options.json) return printJson(terminal, report);
      terminal.out(balancePicture(report));
    });
  const run = addGroupOptions(balance.command("run"))
    .description("make the move that is worth most now, without waiting for an imbalance to last")
    .option("--dry-run", "say what it would be, and move nobody")
    .action(async (options: GroupOptions & { dryRun?: boolean }) => {
      const group = await openGroup(options);
      const move = options.dryRun ? (await group.balance()).next : await group.runBalance();
      if (options.json) return printJson(terminal, move);
      if (move === null) return terminal.out("Nothing is worth a move.\n");
      terminal.out(`${options.dryRun ? "Would move" : "Moving"} ${moveText(move)}\n${termsTable(move)}`);
    });
  const policy = addGroupOptions(balance.command("policy"))
    .description("set for the whole group where initiators that log in are sent")
    .addArgument(new Argument("<name>", "the policy").choices(loginPolicies))
    .action(async (name: string, options: GroupOptions) => {
      await (await openGroup(options)).setBalancePolicy(name);
      if (options.json) return printJson(terminal, { policy: name });
      terminal.out(`The login policy is ${name}.\n`);
    });
  withExamples(show, ["plimsoll balance show", "plimsoll balance show --json | jq .members"]);
  withExamples(run, ["plimsoll balance run --dry-run"]);
  withExamples(policy, ["plimsoll balance policy least-loaded"]);
  withExamples(balance, ["plimsoll balance show"]);
}

/** Sessions whose terms are written out. */
const shownMax = 12;

export function balancePicture(report: BalanceReport): string {
  const { settings } = report;
  const rows = report.members.map((m) => [
    printable(m.name),
    m.draining ? "draining" : "",
    String(m.sessions),
    formatCount(m.work),
    `${m.excess > 0 ? "+" : ""}${Math.round(m.excess * 100)} %`,
    formatCount(m.accessesPerS),
    m.accessUs === 0 ? "-" : `${formatCount(m.accessUs)} µs`,
  ]);
  const out = [
    `Policy ${report.policy}; dead band ${Math.round(settings.deadBand * 100)} % of the average, which is ` +
    `${formatCount(report.average)} commands' worth a second; seen from ${printable(report.member)}, ` +
    `which has begun ${report.moves} moves.`,
    "",
    table(
      [["MEMBER", "", "SESSIONS", "WORK", "TO AVERAGE", "DISK ACCESSES/S", "TIME"], ...rows],
      [false, false, true, true, true, true, true],
    ).trimEnd(),
    "",
    pagesText(report),
  ];
  const seen = new Set<number>();
  for (const opinion of report.opinions) {
    if (seen.has(opinion.session) || seen.size === shownMax) continue;
    seen.add(opinion.session);
    const verdict = opinion.verdict === "move" ? "would go to" : "stays; best would be";
    out.push("", `Session ${moveText(opinion, verdict)}`, termsTable(opinion).trimEnd());
  }
  if (seen.size === 0) out.push("", "No session of this member has another place to be.");
  return `${out.join("\n")}\n`;
}

function pagesText({ member, pages: { moving, heat, hotPages, coldPages } }: BalanceReport): string {
  const now = moving === null
    ? ""
    : ` Now ${moving.pages} of ${printable(moving.volume)} go to ${printable(moving.to)} (${moving.reason}).`;
  return `Pages of ${
    printable(member)
  }: ${hotPages} hot ones given away, ${coldPages} cold ones given back.${now}\n` +
    `Heat: ${printable(heat)}.`;
}

function moveText(move: BalanceOpinion, verdict = "to"): string {
  return `${move.session} (${printable(move.initiator)}, ${printable(move.volume)}) ${verdict} ${
    printable(move.to)
  }: ${move.total.toFixed(2)}`;
}

function termsTable({ terms }: BalanceOpinion): string {
  return table(terms.map(({ name, value, why }) => [`  ${name}`, value.toFixed(2), printable(why)]), [
    false,
    true,
    false,
  ]);
}
