// Handlers by operation code, and by service action where there is one.

import { assert } from "../base/assert.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { serviceActionField } from "../wire/scsi/cdb_shape.ts";
import type { Handler } from "./command.ts";

/** Why there is no handler: the operation code is unknown, or its service action. */
export type Missing = "opcode" | "serviceAction";

export class HandlerTable {
  readonly #byOpcode: (Handler | null)[] = new Array(256).fill(null);
  readonly #byServiceAction: (Handler[] | null)[] = new Array(256).fill(null);
  readonly #shapes: CdbShape[] = [];

  constructor(handlers: Iterable<Handler>) {
    for (const handler of handlers) this.#add(handler);
    this.#shapes.sort((a, b) => a.opcode - b.opcode || (a.serviceAction ?? 0) - (b.serviceAction ?? 0));
  }

  /** Every command there is a handler for, in the order of operation codes. */
  get shapes(): readonly CdbShape[] {
    return this.#shapes;
  }

  find(cdb: DataView): Handler | Missing {
    const opcode = cdb.getUint8(0);
    const handler = this.#byOpcode[opcode];
    if (handler) return handler;
    const actions = this.#byServiceAction[opcode];
    if (!actions) return "opcode";
    return actions[serviceActionField.get(cdb, 0)] ?? "serviceAction";
  }

  #add(handler: Handler): void {
    const { opcode, serviceAction } = handler.shape;
    assert((this.#byOpcode[opcode] ?? null) === null, `two handlers for operation code ${opcode}`);
    this.#shapes.push(handler.shape);
    if (serviceAction === null) this.#byOpcode[opcode] = handler;
    else (this.#byServiceAction[opcode] ??= [])[serviceAction] = handler;
  }
}
