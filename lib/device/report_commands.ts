// REPORT SUPPORTED OPERATION CODES, REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, REPORT TARGET PORT GROUPS (SPC-4 §6.35 to §6.37).

import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { allCommands, oneCommand, targetPortGroups, taskManagementSupport } from "../wire/scsi/report.ts";
import { invalidFieldInCdb } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";

/** REPORTING OPTIONS (SPC-4 §6.35.1). */
const Options = Object.freeze({ all: 0, opcode: 1, serviceAction: 2, either: 3 });

/** `supported` is asked at the time of the command: the table of handlers is complete then. */
function operationCodesHandler(supported: () => readonly CdbShape[]): Handler {
  return Object.freeze({
    shape: cdb.ReportSupportedOperationCodes,
    execute(c: Command): void {
      const f = cdb.ReportSupportedOperationCodes.fields;
      const options = f.reportingOptions.get(c.cdb, 0);
      const timeouts = f.returnTimeouts.get(c.cdb, 0) === 1;
      const length = f.allocationLength.get(c.cdb, 0);
      if (options > Options.either) return c.check(invalidFieldInCdb(2, 2));
      if (options === Options.all) return c.respond(allCommands(supported(), timeouts), length);
      const opcode = f.requestedOperationCode.get(c.cdb, 0);
      const serviceAction = f.requestedServiceAction.get(c.cdb, 0);
      const ofOpcode = supported().filter((s) => s.opcode === opcode);
      const hasServiceActions = ofOpcode.some((s) => s.serviceAction !== null);
      if (options === Options.opcode && hasServiceActions) return c.check(invalidFieldInCdb(2, 2));
      if (options === Options.serviceAction && ofOpcode.length > 0 && !hasServiceActions) {
        return c.check(invalidFieldInCdb(2, 2));
      }
      const wanted = hasServiceActions ? serviceAction : null;
      const found = ofOpcode.find((s) => s.serviceAction === wanted) ?? null;
      // Option 011b with a service action for a command without: the service action must be zero.
      const shape = options === Options.either && wanted === null && serviceAction !== 0 ? null : found;
      c.respond(oneCommand(shape, timeouts), length);
    },
  });
}

const taskManagementFunctionsHandler: Handler = Object.freeze({
  shape: cdb.ReportSupportedTaskManagementFunctions,
  execute(c: Command): void {
    const f = cdb.ReportSupportedTaskManagementFunctions.fields;
    const bytes = taskManagementSupport(f.returnExtended.get(c.cdb, 0) === 1);
    c.respond(bytes, f.allocationLength.get(c.cdb, 0));
  },
});

const targetPortGroupsHandler: Handler = Object.freeze({
  shape: cdb.ReportTargetPortGroups,
  execute(c: Command): void {
    const f = cdb.ReportTargetPortGroups.fields;
    const format = f.parameterDataFormat.get(c.cdb, 0);
    if (format > 1) return c.check(invalidFieldInCdb(1, 7));
    const bytes = targetPortGroups(c.unit.settings.targetPortGroups, format === 1);
    c.respond(bytes, f.allocationLength.get(c.cdb, 0));
  },
});

export function reportHandlers(supported: () => readonly CdbShape[]): readonly Handler[] {
  return [operationCodesHandler(supported), taskManagementFunctionsHandler, targetPortGroupsHandler];
}
