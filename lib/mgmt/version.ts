// The version of this program; a test keeps it equal to deno.json's.

export const version = "0.1.0";

/** "0.1 " of "0.1.0": the four characters that INQUIRY has for it. */
export const revisionLevel = version.split(".").slice(0, 2).join(".").padEnd(4).slice(0, 4);
