// plimsoll decode: an iSCSI PDU in words.

import type { Command } from "commander";
import { describePdus, formatPdu } from "../lib/wire/iscsi/dump.ts";
import { withExamples } from "./help.ts";
import { CommandError, printJson, type Terminal, usageError } from "./terminal.ts";

/** Hexadecimal text of a capture of 16 MiB, with blanks between the bytes. */
const inputBytesMax = 48 * 1024 * 1024;

export function registerDecode(program: Command, terminal: Terminal): void {
  const command = program.command("decode <hex>")
    .description("describe iSCSI PDUs, given as hexadecimal digits or on stdin (-)")
    .option("--json", "print JSON")
    .action(async (hex: string, options: { json?: boolean }) => {
      const bytes = bytesOf(
        hex === "-" ? new TextDecoder().decode(await terminal.readAll(inputBytesMax)) : hex,
      );
      const result = describePdus(bytes);
      if (result.kind === "bad") throw new CommandError(`Cannot decode the input: ${result.reason}`);
      if (options.json) printJson(terminal, result.pdus);
      else terminal.out(result.pdus.map((pdu) => formatPdu(pdu)).join("\n"));
    });
  withExamples(command, [
    "plimsoll decode $(xxd -p pdu.bin | tr -d '\\n')",
    "xxd -p capture.bin | plimsoll decode -",
    "plimsoll decode - --json < pdu.hex",
  ]);
}

/** Digits, with blanks, colons, "0x" and the offsets of neither hexdump nor xxd -p. */
function bytesOf(text: string): Uint8Array {
  const digits = text.replace(/0x/gi, "").replace(/[\s:,]/g, "");
  if (!/^[0-9a-f]+$/i.test(digits) || digits.length % 2 !== 0) {
    throw usageError(
      "Cannot decode the input: it must be pairs of hexadecimal digits (blanks and colons between them are fine). " +
        "xxd -p makes such text of a file.",
    );
  }
  return Uint8Array.fromHex(digits);
}
