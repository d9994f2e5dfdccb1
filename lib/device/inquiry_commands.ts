// INQUIRY, REPORT LUNS, REQUEST SENSE, TEST UNIT READY and START STOP UNIT (SPC-4 §6.6, §6.33, §6.39, §6.47; SBC-3 §5.25).

import * as cdb from "../wire/scsi/cdb.ts";
import * as inquiry from "../wire/scsi/inquiry.ts";
import { referralsPage } from "../wire/scsi/referrals.ts";
import { reportLuns } from "../wire/scsi/report.ts";
import type { SenseData } from "../wire/scsi/sense.ts";
import { invalidFieldInCdb, Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";

/** `connected` false: for a LUN without a logical unit. */
function inquiryHandler(connected: boolean): Handler {
  return Object.freeze({
    shape: cdb.Inquiry,
    ignoresUnitAttention: true,
    execute(c: Command): void {
      const f = cdb.Inquiry.fields;
      const length = f.allocationLength.get(c.cdb, 0);
      const pageCode = f.pageCode.get(c.cdb, 0);
      if (f.enableVitalProductData.get(c.cdb, 0) === 0) {
        if (pageCode !== 0) return c.check(invalidFieldInCdb(2, 7));
        return c.respond(inquiry.standardInquiry(c.unit.settings.revision, connected), length);
      }
      const page = connected ? vpdPage(c, pageCode) : pageCode === 0 ? unconnectedPages() : null;
      if (page === null) return c.check(invalidFieldInCdb(2, 7));
      c.respond(page, length);
    },
  });
}

function vpdPage(c: Command, pageCode: number): Uint8Array | null {
  const { settings } = c.unit;
  switch (pageCode) {
    case 0x00:
      return inquiry.supportedPages(c.unit.refers);
    case 0x80:
      return inquiry.unitSerialNumber(settings.identifier);
    case 0x83:
      return inquiry.deviceIdentification({
        targetName: settings.targetName,
        identifier: settings.identifier,
        relativeTargetPort: c.nexus.nexus.relativeTargetPort,
        targetPortGroupTag: c.nexus.nexus.targetPortalGroupTag,
      });
    case 0x86:
      return inquiry.extendedInquiry(c.unit.refers);
    case 0xb0:
      return inquiry.blockLimits(c.unit.limits);
    case 0xb1:
      return inquiry.blockDeviceCharacteristics();
    case 0xb2:
      return inquiry.logicalBlockProvisioning();
    case 0xb3:
      return c.unit.refers ? referralsPage() : null;
    default:
      return null;
  }
}

/** Page 00h of a LUN without a logical unit: nothing but itself. */
function unconnectedPages(): Uint8Array {
  return new Uint8Array([0x7f, 0x00, 0x00, 0x01, 0x00]);
}

/** SELECT REPORT values of SPC-4 §6.33 that SAM's single level allows. */
const SelectReport = Object.freeze({ ordinary: 0, wellKnown: 1, all: 2 });

const reportLunsHandler: Handler = Object.freeze({
  shape: cdb.ReportLuns,
  ignoresUnitAttention: true,
  execute(c: Command): void {
    const f = cdb.ReportLuns.fields;
    const select = f.selectReport.get(c.cdb, 0);
    if (select > SelectReport.all) return c.check(invalidFieldInCdb(2, 7));
    const length = f.allocationLength.get(c.cdb, 0);
    if (length < 16) return c.check(invalidFieldInCdb(6, 7));
    c.respond(reportLuns(select !== SelectReport.wellKnown), length);
  },
});

function requestSenseHandler(connected: boolean): Handler {
  return Object.freeze({
    shape: cdb.RequestSense,
    ignoresUnitAttention: true,
    execute(c: Command): void {
      const f = cdb.RequestSense.fields;
      const sense = connected ? pendingSense(c) : Sense.logicalUnitNotSupported;
      const bytes = f.descriptorFormat.get(c.cdb, 0) === 1 ? sense.descriptor : sense.fixed;
      c.respond(bytes, f.allocationLength.get(c.cdb, 0));
    },
  });
}

/** A pending unit attention is told, and thereby cleared (SPC-4 §6.39). */
function pendingSense(c: Command): SenseData {
  return c.nexus.attentions.take() ?? (c.unit.stopped ? Sense.initializingCommandRequired : Sense.none);
}

const testUnitReadyHandler: Handler = Object.freeze({
  shape: cdb.TestUnitReady,
  medium: true,
  execute(c: Command): void {
    c.good();
  },
});

/** Ends the command once the unit is stopped or started; `flushes`: and everything is durable. */
export type StopUnit = (c: Command, stopped: boolean, flushes: boolean) => void;

function startStopUnitHandler(stop: StopUnit): Handler {
  const f = cdb.StartStopUnit.fields;
  return Object.freeze({
    shape: cdb.StartStopUnit,
    execute(c: Command): void {
      if (f.powerCondition.get(c.cdb, 0) !== 0) return c.check(invalidFieldInCdb(4, 7));
      if (f.loadEject.get(c.cdb, 0) === 1) return c.check(invalidFieldInCdb(4, 1)); // the medium cannot be removed
      if (f.start.get(c.cdb, 0) === 1) return stop(c, false, false);
      stop(c, true, f.noFlush.get(c.cdb, 0) === 0);
    },
  });
}

export function inquiryHandlers(stop: StopUnit): readonly Handler[] {
  return [
    inquiryHandler(true),
    reportLunsHandler,
    requestSenseHandler(true),
    testUnitReadyHandler,
    startStopUnitHandler(stop),
  ];
}

/** What is answered at a LUN where there is no logical unit (SPC-4 §6.6.1, SAM-5 §4.7). */
export const unconnectedHandlers: readonly Handler[] = [
  inquiryHandler(false),
  reportLunsHandler,
  requestSenseHandler(false),
];
