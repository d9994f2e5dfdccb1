// Reads tables of a document key by key and collects every complaint, instead of stopping at the first.

import type { Entry, Place, TableValue, Value } from "./document.ts";
import { nearestName } from "./nearest.ts";
import type { Problem } from "./problem.ts";

/** Something read, with what a later complaint about it needs. */
export interface Found<T> {
  readonly value: T;
  readonly key: string;
  readonly place: Place;
  /** As the file has it; empty for what may be a secret. */
  readonly shown: string;
}

/** What a value is asked to be: the value, or why not. */
export type Check<T> = { readonly ok: true; readonly value: T } | {
  readonly ok: false;
  readonly reason: string;
};

export function right<T>(value: T): Check<T> {
  return { ok: true, value };
}

export function wrong(reason: string): { readonly ok: false; readonly reason: string } {
  return { ok: false, reason };
}

/** A check made of a function that says what is wrong. */
export function unless(problem: (text: string) => string | null): (text: string) => Check<string> {
  return (text) => {
    const reason = problem(text);
    return reason === null ? right(text) : wrong(reason);
  };
}

export class Complaints {
  readonly problems: Problem[] = [];
  readonly warnings: Problem[] = [];

  constructor(readonly file: string) {}

  /** `reason` is the end of a sentence that begins with the key and value; `expected` completes "Expected …". */
  complain(found: Omit<Found<unknown>, "value">, reason: string, expected: string): void {
    this.problems.push(this.#problem(found, `Cannot use ${named(found)}: ${reason}.`, expected));
  }

  warn(found: Omit<Found<unknown>, "value">, sentence: string, expected: string): void {
    this.warnings.push(this.#problem(found, `Warning for ${named(found)}: ${sentence}.`, expected));
  }

  add(key: string, place: Place, sentence: string, expected: string): void {
    this.problems.push(this.#problem({ key, place, shown: "" }, sentence, expected));
  }

  #problem(found: Omit<Found<unknown>, "value">, sentence: string, expected: string): Problem {
    return {
      file: this.file,
      line: found.place.line,
      column: found.place.column,
      key: found.key,
      value: found.shown,
      expected,
      message: expected === "" ? sentence : `${sentence} Expected ${expected}.`,
    };
  }
}

function named(found: Omit<Found<unknown>, "value">): string {
  return found.shown === "" ? found.key : `${found.key} = ${found.shown}`;
}

const shownCharactersMax = 60;

function shownOf(value: Value, hidden: boolean): string {
  if (hidden) return "";
  const line = value.source.split("\n", 1)[0]!;
  const cut = line.length > shownCharactersMax || line.length < value.source.length;
  return cut ? `${line.slice(0, shownCharactersMax)}…` : line;
}

/** One table. Ask for every key it may have, then call finish(), which complains about the others. */
export class TableReader {
  readonly #known: string[] = [];

  constructor(
    readonly complaints: Complaints,
    /** "" for the root. */
    readonly key: string,
    readonly table: TableValue,
    readonly place: Place,
    /** Values are never shown. */
    readonly hidden = false,
  ) {}

  keyOf(name: string): string {
    return this.key === "" ? name : `${this.key}.${name}`;
  }

  has(name: string): boolean {
    return this.table.entries.has(name);
  }

  entry(name: string): Entry | null {
    this.#known.push(name);
    return this.table.entries.get(name) ?? null;
  }

  missing(name: string, expected: string): void {
    this.complaints.add(
      this.key,
      this.place,
      `Missing ${name} in ${this.key === "" ? "the file" : this.key}.`,
      `${name} = ${expected}`,
    );
  }

  /** A text that passes `check`; null when it is not there or wrong (which has been said). */
  text<T>(
    name: string,
    expected: string,
    check: (text: string) => Check<T>,
    hidden = this.hidden,
  ): Found<T> | null {
    const entry = this.entry(name);
    if (entry === null) return null;
    return this.#textOf(entry.value, this.keyOf(name), expected, check, hidden);
  }

  requiredText<T>(name: string, expected: string, check: (text: string) => Check<T>): Found<T> | null {
    if (!this.has(name)) this.missing(name, expected);
    return this.text(name, expected, check);
  }

  flag(name: string): Found<boolean> | null {
    const entry = this.entry(name);
    if (entry === null) return null;
    const found = this.#found(entry.value, this.keyOf(name));
    if (entry.value.kind === "boolean") return { ...found, value: entry.value.flag };
    this.complaints.complain(found, `it is ${kindOf(entry.value)}`, "true or false");
    return null;
  }

  /** A number or text that passes `check`. */
  quantity<T>(name: string, expected: string, check: (given: string | number) => Check<T>): Found<T> | null {
    const entry = this.entry(name);
    if (entry === null) return null;
    const { value } = entry;
    const found = this.#found(value, this.keyOf(name));
    const given = value.kind === "number" ? value.number : value.kind === "string" ? value.text : null;
    const checked = given === null ? wrong(`it is ${kindOf(value)}`) : check(given);
    if (checked.ok) return { ...found, value: checked.value };
    this.complaints.complain(found, checked.reason, expected);
    return null;
  }

  /** A list of texts that each pass `check`, at most `max`; wrong ones are left out. Null when it is not there. */
  texts<T>(
    name: string,
    expected: string,
    max: number,
    check: (text: string) => Check<T>,
  ): Found<readonly Found<T>[]> | null {
    const entry = this.entry(name);
    if (entry === null) return null;
    const found = this.#found(entry.value, this.keyOf(name));
    if (entry.value.kind !== "array") {
      this.complaints.complain(
        found,
        `it is ${kindOf(entry.value)}`,
        `a list in brackets, each of it ${expected}`,
      );
      return null;
    }
    const items = entry.value.items;
    if (items.length > max) {
      this.complaints.complain({ ...found, shown: "" }, `it has ${items.length} entries`, `${max} at most`);
    }
    const value = items.slice(0, max).map((item, i) =>
      this.#textOf(item, `${this.keyOf(name)}[${i}]`, expected, check, this.hidden)
    ).filter((item) => item !== null);
    return { ...found, value };
  }

  /** A table under this one. */
  inner(name: string, expected: string, hidden = this.hidden): TableReader | null {
    const entry = this.entry(name);
    if (entry === null) return null;
    if (entry.value.kind === "table") {
      return new TableReader(this.complaints, this.keyOf(name), entry.value, entry.place, hidden);
    }
    const found = this.#found(entry.value, this.keyOf(name), hidden);
    this.complaints.complain(found, `it is ${kindOf(entry.value)}`, expected);
    return null;
  }

  /** The tables of `[[name]]`, at most `max`. */
  tables(name: string, max: number): TableReader[] {
    const entry = this.entry(name);
    if (entry === null) return [];
    const key = this.keyOf(name);
    if (entry.value.kind !== "array") {
      const what = entry.value.kind === "table" ? "it is one table" : `it is ${kindOf(entry.value)}`;
      this.complaints.complain({ key, place: entry.place, shown: "" }, what, `[[${name}]], once for each`);
      return [];
    }
    const items = entry.value.items;
    if (items.length > max) {
      this.complaints.complain(
        { key, place: entry.place, shown: "" },
        `there are ${items.length}`,
        `${max} at most`,
      );
    }
    return items.slice(0, max).flatMap((item, i) => {
      if (item.kind === "table") return [new TableReader(this.complaints, `${key}[${i}]`, item, item.place)];
      this.complaints.complain(
        { key: `${key}[${i}]`, place: item.place, shown: "" },
        `it is ${kindOf(item)}`,
        "a table",
      );
      return [];
    });
  }

  /** Complains about every key that was not asked for. Their values are not shown: a slip may have put a secret there. */
  finish(): void {
    for (const [name, entry] of this.table.entries) {
      if (this.#known.includes(name)) continue;
      const near = nearestName(name, this.#known.filter((known) => !this.has(known)));
      const known = [...new Set(this.#known)].join(", ");
      const sentence = `Unknown key ${JSON.stringify(name)} in ${this.key === "" ? "the file" : this.key}.`;
      this.complaints.add(this.keyOf(name), entry.place, sentence, near ?? `one of ${known}`);
    }
  }

  #textOf<T>(
    value: Value,
    key: string,
    expected: string,
    check: (text: string) => Check<T>,
    hidden: boolean,
  ): Found<T> | null {
    const found = this.#found(value, key, hidden);
    const checked = value.kind === "string" ? check(value.text) : wrong(`it is ${kindOf(value)}`);
    if (checked.ok) return { ...found, value: checked.value };
    this.complaints.complain(found, checked.reason, expected);
    return null;
  }

  #found(value: Value, key: string, hidden = this.hidden): Omit<Found<never>, "value"> {
    return { key, place: value.place, shown: shownOf(value, hidden) };
  }
}

function kindOf(value: Value): string {
  switch (value.kind) {
    case "string":
      return "a text";
    case "number":
      return "a number";
    case "boolean":
      return "true or false";
    case "date":
      return "a date or time";
    case "array":
      return "a list";
    case "table":
      return "a table";
  }
}
