// Shapes of what the admin API is sent. A complaint names the key and what would be right, never the value:
// it may be a secret.

import { z } from "zod";
import { volumeClasses } from "../meta/records.ts";
import type { VolumeChange, VolumeCreation } from "./control.ts";

const chap = z.strictObject({ user: z.string().min(1).max(255), secret: z.string().min(1).max(255) });
const sizeBytes = z.number().int().positive().max(Number.MAX_SAFE_INTEGER);

const change = {
  initiators: z.array(z.string().min(1).max(223)).max(128).nullable().optional(),
  chap: chap.nullable().optional(),
  mutual: chap.nullable().optional(),
  writeCache: z.boolean().optional(),
  writeProtected: z.boolean().optional(),
  volumeClass: z.enum(volumeClasses).optional(),
};

const volumeChange = z.strictObject(change);
const volumeCreation = z.strictObject({
  ...change,
  name: z.string().min(1).max(223),
  sizeBytes,
  blockBytes: z.union([z.literal(512), z.literal(4096)]).optional(),
  members: z.array(z.string().min(1).max(223)).max(255).optional(),
});
const resize = z.strictObject({ sizeBytes });

export type Parsed<T> = { readonly ok: true; readonly value: T } | {
  readonly ok: false;
  readonly message: string;
};

export const parseVolumeCreation = (body: unknown) => parse<VolumeCreation>(volumeCreation, body);
export const parseVolumeChange = (body: unknown) => parse<VolumeChange>(volumeChange, body);
const move = z.strictObject({ to: z.string().min(1).max(64), live: z.boolean().optional() });
const policy = z.strictObject({ policy: z.string().min(1).max(64) });

export const parseMove = (body: unknown) => parse<{ to: string; live?: boolean }>(move, body);
export const parsePolicy = (body: unknown) => parse<{ policy: string }>(policy, body);
export const parseResize = (body: unknown) => parse<{ sizeBytes: number }>(resize, body);

function parse<T>(schema: z.ZodType, body: unknown): Parsed<T> {
  const result = schema.safeParse(body);
  // JSON has no undefined, so an optional key is absent or has its type: zod's `| undefined` never happens.
  if (result.success) return { ok: true, value: result.data as T };
  const reasons = result.error.issues.slice(0, 5).map((issue) =>
    `${issue.path.length > 0 ? `"${issue.path.join(".")}": ` : ""}${issue.message}`
  );
  return {
    ok: false,
    message: `Cannot use the request body: ${reasons.join("; ")}. docs/api.md shows its shape.`,
  };
}
