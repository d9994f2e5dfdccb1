// A TOML text as a tree that knows the place of everything in it.

import { type AST, parseTOML } from "toml-eslint-parser";

/** Line and column, both from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

export type Value =
  | { readonly kind: "string"; readonly text: string; readonly place: Place; readonly source: string }
  | { readonly kind: "number"; readonly number: number; readonly place: Place; readonly source: string }
  | { readonly kind: "boolean"; readonly flag: boolean; readonly place: Place; readonly source: string }
  | { readonly kind: "date"; readonly place: Place; readonly source: string }
  | { readonly kind: "array"; readonly items: Value[]; readonly place: Place; readonly source: string }
  | TableValue;

export interface TableValue {
  readonly kind: "table";
  readonly entries: Map<string, Entry>;
  readonly place: Place;
  readonly source: string;
}

export interface Entry {
  /** Of the key. */
  readonly place: Place;
  readonly value: Value;
}

export type Document =
  | { readonly kind: "document"; readonly root: TableValue }
  | { readonly kind: "syntaxError"; readonly place: Place; readonly reason: string };

/** Longer ones hold no configuration, and a parser is not to be fed without bound. */
const charactersMax = 1024 * 1024;

export function parseDocument(text: string): Document {
  if (text.length > charactersMax) {
    return syntaxError(
      { line: 1, column: 1 },
      `it has ${text.length} characters; ${charactersMax} are allowed`,
    );
  }
  const plain = text.replace(/^\ufeff/, "");
  try {
    return { kind: "document", root: treeOf(parseTOML(plain).body[0], plain) };
  } catch (error) {
    // The parser throws its ParseError for wrong text; a depth that exhausts the stack is wrong text as well.
    const { lineNumber, column, message } = error as {
      lineNumber?: number;
      column?: number;
      message?: string;
    };
    return syntaxError({ line: lineNumber ?? 1, column: (column ?? 0) + 1 }, reasonOf(message));
  }
}

function reasonOf(message: string | undefined): string {
  if (message === undefined || /stack/i.test(message)) return "it is nested too deeply";
  return message.charAt(0).toLowerCase() + message.slice(1);
}

function syntaxError(place: Place, reason: string): Document {
  return { kind: "syntaxError", place, reason };
}

function treeOf(top: AST.TOMLTopLevelTable, text: string): TableValue {
  const root = emptyTable({ line: 1, column: 1 });
  for (const node of top.body) {
    if (node.type === "TOMLKeyValue") insert(root, node, text);
    else {
      const table = tableAt(root, node);
      for (const pair of node.body) insert(table, pair, text);
    }
  }
  return root;
}

/** Makes or finds the table that `[a.b]` or `[[a.b]]` opens; the parser has refused contradictions. */
function tableAt(root: TableValue, node: AST.TOMLTable): TableValue {
  const place = placeOf(node);
  let at: Value = root;
  node.resolvedKey.forEach((part, i) => {
    const wantsArray = typeof node.resolvedKey[i + 1] === "number";
    at = step(at, part, wantsArray, place);
  });
  return asTable(at);
}

function step(at: Value, part: string | number, wantsArray: boolean, place: Place): Value {
  if (typeof part === "number") {
    const items = at.kind === "array" ? at.items : fail();
    return items[part] ??= emptyTable(place);
  }
  const entries = asTable(at).entries;
  let entry = entries.get(part);
  if (entry === undefined) {
    const value: Value = wantsArray ? { kind: "array", items: [], place, source: "" } : emptyTable(place);
    entry = { place, value };
    entries.set(part, entry);
  }
  return entry.value;
}

function insert(table: TableValue, pair: AST.TOMLKeyValue, text: string): void {
  const place = placeOf(pair);
  const names = pair.key.keys.map((key) => (key.type === "TOMLBare" ? key.name : key.value));
  let at: Value = table;
  for (const name of names.slice(0, -1)) at = step(at, name, false, place);
  asTable(at).entries.set(names[names.length - 1]!, { place, value: valueOf(pair.value, text) });
}

function valueOf(node: AST.TOMLContentNode, text: string): Value {
  const place = placeOf(node);
  const source = text.slice(node.range[0], node.range[1]);
  switch (node.type) {
    case "TOMLArray":
      return { kind: "array", items: node.elements.map((item) => valueOf(item, text)), place, source };
    case "TOMLInlineTable": {
      const table: TableValue = { kind: "table", entries: new Map(), place, source };
      for (const pair of node.body) insert(table, pair, text);
      return table;
    }
    case "TOMLValue":
      switch (node.kind) {
        case "string":
          return { kind: "string", text: node.value, place, source };
        case "integer":
        case "float":
          return { kind: "number", number: node.value, place, source };
        case "boolean":
          return { kind: "boolean", flag: node.value, place, source };
        default:
          return { kind: "date", place, source };
      }
  }
}

function emptyTable(place: Place): TableValue {
  return { kind: "table", entries: new Map(), place, source: "" };
}

function asTable(value: Value): TableValue {
  return value.kind === "table" ? value : fail();
}

/** Only for what the parser has excluded; parseDocument turns it into a syntax error all the same. */
function fail(): never {
  throw new SyntaxError("a key is used as a table and as a value");
}

function placeOf(node: AST.TOMLNode): Place {
  return { line: node.loc.start.line, column: node.loc.start.column + 1 };
}
