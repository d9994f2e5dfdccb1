// Rules of CHAP users and secrets (RFC 7143 §9.2.1, §12.1.3). Secrets come in and lengths go out: no message has one.

/** 96 bits: what RFC 7143 §9.2.1 asks for, and below which Windows refuses. */
export const chapSecretBytesMin = 12;
export const chapSecretBytesMax = 255;
/** More than Windows takes. */
export const chapSecretBytesWindowsMax = 16;

export const chapSecretExpected =
  `${chapSecretBytesMin} to ${chapSecretBytesMax} bytes (Windows takes ${chapSecretBytesWindowsMax} at most)`;

/** What is wrong with a secret, as the end of a sentence, or null. For secrets of files too, once they are read. */
export function chapSecretProblem(secret: string): string | null {
  const bytes = new TextEncoder().encode(secret).length;
  if (bytes < chapSecretBytesMin) return `it has ${bytes} bytes, and can be guessed`;
  if (bytes > chapSecretBytesMax) return `it has ${bytes} bytes`;
  return null;
}

export const chapUserExpected = "1 to 223 visible ASCII characters";

export function chapUserProblem(user: string): string | null {
  return /^[\x21-\x7e]{1,223}$/.test(user) ? null : "it is no CHAP user name";
}

/** The secret in a file's text. Throws when it is too short or too long. */
export function chapSecretOfFile(path: string, text: string): string {
  const secret = secretOfFile(text);
  const problem = chapSecretProblem(secret);
  if (problem === null) return secret;
  throw new Error(`Cannot use the CHAP secret of "${path}": ${problem}. Give it ${chapSecretExpected}.`);
}

/** A secret file's text as a secret: one line end at its end is not part of it. */
export function secretOfFile(text: string): string {
  return text.replace(/\r?\n$/, "");
}
