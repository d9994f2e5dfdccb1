// [balance]: how clients and pages are spread over the members of a group.

import type { BalanceConfig } from "./config.ts";
import { initiatorPatternExpected, initiatorPatternProblem } from "./name.ts";
import { type Check, right, type TableReader, unless, wrong } from "./reader.ts";

export const balanceDefaults: BalanceConfig = Object.freeze({
  reportMs: 1_000,
  settleMs: 30_000,
  dwellMs: 120_000,
  logoutSeconds: 3,
  deadBand: 0.25,
  workMin: 1_000,
  movesMax: 2,
  noRedirect: Object.freeze([]),
  heat: true,
  heatFactor: 2,
  heatMinUs: 1_000,
  heatMs: 180_000,
  heatDwellMs: 1_800_000,
});

const patternsMax = 128;

export function readBalance(root: TableReader): BalanceConfig {
  const balance = root.inner("balance", "a table: [balance]");
  if (balance === null) return balanceDefaults;
  const between = (name: string, from: number, to: number, unit: string, whole = false) =>
    balance.quantity(name, `a ${whole ? "whole " : ""}number${unit} from ${from} to ${to}`, (given) => {
      return numberBetween(given, from, to, whole);
    })?.value ?? null;
  const milliseconds = (name: string, from: number, to: number, otherwise: number) => {
    const seconds = between(name, from, to, " of seconds");
    return seconds === null ? otherwise : Math.round(seconds * 1000);
  };
  const d = balanceDefaults;
  const config = {
    reportMs: milliseconds("report_seconds", 0.1, 10, d.reportMs),
    settleMs: milliseconds("settle_seconds", 1, 3600, d.settleMs),
    dwellMs: milliseconds("dwell_seconds", 1, 86_400, d.dwellMs),
    logoutSeconds: between("logout_seconds", 1, 60, " of seconds", true) ?? d.logoutSeconds,
    deadBand: between("dead_band", 0.05, 10, "") ?? d.deadBand,
    workMin: between("work_min", 1, 10_000_000, "") ?? d.workMin,
    movesMax: between("moves_at_once", 1, 16, "", true) ?? d.movesMax,
    noRedirect: balance.texts(
      "no_redirect",
      initiatorPatternExpected,
      patternsMax,
      unless(initiatorPatternProblem),
    )
      ?.value.map(({ value }) => value) ?? d.noRedirect,
    heat: balance.flag("heat")?.value ?? d.heat,
    heatFactor: between("heat_factor", 1.2, 100, "") ?? d.heatFactor,
    heatMinUs: between("heat_min_us", 1, 10_000_000, " of microseconds") ?? d.heatMinUs,
    heatMs: milliseconds("heat_seconds", 1, 86_400, d.heatMs),
    heatDwellMs: milliseconds("heat_dwell_seconds", 1, 604_800, d.heatDwellMs),
  };
  balance.finish();
  return config;
}

function numberBetween(given: string | number, from: number, to: number, whole: boolean): Check<number> {
  if (typeof given !== "number") return wrong("it is not a number");
  if (whole && !Number.isInteger(given)) return wrong("it is not a whole number");
  return given >= from && given <= to ? right(given) : wrong("it is out of range");
}
