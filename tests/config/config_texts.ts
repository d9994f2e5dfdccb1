// Configurations to begin with, and what the parser says of a text.

import { strict as assert } from "node:assert";
import { type Config, formatProblem, parseConfig } from "../../lib/config/mod.ts";

export const file = "etc/appliance.toml";

export function config(text: string): Config {
  const result = parseConfig(text, file);
  assert.ok(result.ok, result.ok ? "" : result.problems.map(formatProblem).join("\n"));
  return result.config;
}

export function problems(text: string): string[] {
  const result = parseConfig(text, file);
  assert.equal(result.ok, false, "this configuration should have been refused");
  return result.ok ? [] : result.problems.map(formatProblem);
}

/** The one complaint about the text. */
export function complaint(text: string): string {
  const all = problems(text);
  assert.equal(all.length, 1, all.join("\n"));
  return all[0]!;
}

export const group = `[group]
name = "demo"
metadata = "sqlite:var/group.db"
secret_file = "var/group.secret"
iqn_prefix = "iqn.2026-11.net.plimsoll.demo"
`;
export const member = `[member]
name = "alpha"
portals = ["10.0.0.1:3260"]
admin = "127.0.0.1:3280"
state_dir = "var/alpha"
`;
export const base = `${group}${member}`;
