// iSCSI names: iqn., eui. and naa. (RFC 7143 §4.2.7), in the normal form of RFC 3722 (NFKC, lower case). Two names are
// the same when their normal forms are equal byte for byte.

export const iscsiNameBytesMax = 223;

export type NameParse =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "invalid"; readonly reason: string };

/**
 * Normalizes and checks a name. "strict" is for the names that we give. "tolerant" is for the names that peers have:
 * it takes any visible ASCII but the comma (which ends a name in a TransportID) and does not look into the date.
 */
export function parseIscsiName(text: string, manner: "strict" | "tolerant" = "strict"): NameParse {
  const name = normalize(text);
  const bytes = encoder.encode(name).length;
  if (bytes > iscsiNameBytesMax) return invalid(`${bytes} bytes; ${iscsiNameBytesMax} are allowed`);
  const bad = (manner === "strict" ? prohibited : prohibitedAlways).exec(name);
  if (bad !== null) {
    return invalid(`contains U+${bad[0].codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`);
  }
  const shape = shapes.find((s) => name.startsWith(s.prefix));
  if (shape === undefined) return invalid(`begins with none of "iqn.", "eui.", "naa."`);
  if (name.length === shape.prefix.length) return invalid(`nothing follows "${shape.prefix}"`);
  if (manner === "strict" && !shape.pattern.test(name)) return invalid(`is not of the form ${shape.form}`);
  return { kind: "name", name };
}

/** The normal form, or null when the text is no name. */
export function normalizeIscsiName(text: string, manner: "strict" | "tolerant" = "strict"): string | null {
  const parsed = parseIscsiName(text, manner);
  return parsed.kind === "name" ? parsed.name : null;
}

/** Whether `name` (normalized) matches `pattern`, in which each `*` stands for any number of characters. */
export function matchesNamePattern(name: string, pattern: string): boolean {
  const pieces = normalize(pattern).split("*");
  const first = pieces[0]!;
  if (pieces.length === 1) return name === first;
  const last = pieces[pieces.length - 1]!;
  if (!name.startsWith(first) || !name.endsWith(last) || name.length < first.length + last.length) {
    return false;
  }
  let at = first.length;
  const end = name.length - last.length;
  for (const piece of pieces.slice(1, -1)) {
    const found = name.indexOf(piece, at);
    if (found < 0 || found + piece.length > end) return false;
    at = found + piece.length;
  }
  return true;
}

const encoder = new TextEncoder();

/** RFC 3722 §3 and §4: case folding, then NFKC. */
function normalize(text: string): string {
  return text.normalize("NFKC").toLowerCase().normalize("NFKC");
}

// RFC 3722 §5: ASCII other than letters, digits, "-", "." and ":"; the ideographic full stop; spaces; everything that
// Unicode calls control, format, surrogate, private or unassigned.
const prohibited = /[^\-.:a-z0-9\u0080-\u{10ffff}]|[\u3002\p{Z}\p{C}]/u;
const prohibitedAlways = /[\s,\u3002\p{Z}\p{C}]/u;

const shapes = [
  {
    prefix: "iqn.",
    pattern: /^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[^.:]+(\.[^.:]+)*(:.*)?$/,
    form: `"iqn.yyyy-mm.reversed.domain[:string]"`,
  },
  { prefix: "eui.", pattern: /^eui\.[0-9a-f]{16}$/, form: `"eui." and 16 hexadecimal digits` },
  {
    prefix: "naa.",
    pattern: /^naa\.([0-9a-f]{16}|[0-9a-f]{32})$/,
    form: `"naa." and 16 or 32 hexadecimal digits`,
  },
] as const;

function invalid(reason: string): NameParse {
  return { kind: "invalid", reason };
}
