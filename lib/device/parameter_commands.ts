// MODE SENSE and MODE SELECT, READ CAPACITY, READ DEFECT DATA (SPC-4 §6.11 to §6.14; SBC-3 §5.16 to §5.19).

import type { Field } from "../wire/field.ts";
import * as data from "../wire/scsi/block_data.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import type { ModeValues } from "../wire/scsi/mode.ts";
import { modeSelect, modeSense, PageControl } from "../wire/scsi/mode.ts";
import { invalidFieldInCdb, Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";

type ModeSenseShape = CdbShape<
  Readonly<
    Record<
      "disableBlockDescriptors" | "pageControl" | "pageCode" | "subpageCode" | "allocationLength",
      Field
    >
  >
>;

function modeSenseHandler(shape: ModeSenseShape, longLba: Field | null): Handler {
  const f = shape.fields;
  return Object.freeze({
    shape,
    execute(c: Command): void {
      const pageControl = f.pageControl.get(c.cdb, 0);
      if (pageControl === PageControl.saved) return c.check(Sense.savingParametersNotSupported);
      const bytes = modeSense({
        long: shape.cdbBytes === 10,
        blockDescriptor: f.disableBlockDescriptors.get(c.cdb, 0) === 0,
        longLba: longLba?.get(c.cdb, 0) === 1,
        pageControl,
        pageCode: f.pageCode.get(c.cdb, 0),
        subpageCode: f.subpageCode.get(c.cdb, 0),
      }, c.unit.modeUnit);
      if (bytes === null) return c.check(invalidFieldInCdb(2, 5));
      c.respond(bytes, f.allocationLength.get(c.cdb, 0));
    },
  });
}

type ModeSelectShape = CdbShape<
  Readonly<Record<"pageFormat" | "savePages" | "parameterListLength", Field>>
>;

/** `changed` ends the command once the new values are in force: other nexuses get a unit attention. */
function modeSelectHandler(
  shape: ModeSelectShape,
  changed: (c: Command, values: ModeValues) => void,
): Handler {
  const f = shape.fields;
  return Object.freeze({
    shape,
    execute(c: Command): void {
      if (f.savePages.get(c.cdb, 0) === 1) return c.check(invalidFieldInCdb(1, 0));
      const length = f.parameterListLength.get(c.cdb, 0);
      if (length === 0) return c.good();
      if (f.pageFormat.get(c.cdb, 0) === 0) return c.check(invalidFieldInCdb(1, 4));
      c.request(length);
    },
    dataReceived(c: Command): void {
      const length = f.parameterListLength.get(c.cdb, 0);
      if (c.task.dataOutLength < length) return c.check(Sense.parameterListLengthError);
      const bytes = c.task.dataOut!.bytes.subarray(0, length);
      const result = modeSelect(bytes, shape.cdbBytes === 10, c.unit.modeUnit);
      if (result.sense !== null) return c.check(result.sense);
      changed(c, result.values);
    },
  });
}

const readCapacity10Handler: Handler = Object.freeze({
  shape: cdb.ReadCapacity10,
  execute(c: Command): void {
    c.respond(data.readCapacity10(c.unit.blocks, c.unit.blockBytes), 8);
  },
});

const readCapacity16Handler: Handler = Object.freeze({
  shape: cdb.ReadCapacity16,
  execute(c: Command): void {
    const bytes = data.readCapacity16(c.unit.blocks, c.unit.blockBytes, c.unit.blocksPerPhysicalExponent);
    c.respond(bytes, cdb.ReadCapacity16.fields.allocationLength.get(c.cdb, 0));
  },
});

type DefectShape = CdbShape<
  Readonly<
    Record<"requestPrimaryList" | "requestGrownList" | "defectListFormat" | "allocationLength", Field>
  >
>;

function readDefectDataHandler(shape: DefectShape): Handler {
  const f = shape.fields;
  return Object.freeze({
    shape,
    execute(c: Command): void {
      const bytes = data.emptyDefectList(
        shape.cdbBytes === 12,
        f.requestPrimaryList.get(c.cdb, 0) === 1,
        f.requestGrownList.get(c.cdb, 0) === 1,
        f.defectListFormat.get(c.cdb, 0),
      );
      c.respond(bytes, f.allocationLength.get(c.cdb, 0));
    },
  });
}

export function parameterHandlers(changed: (c: Command, values: ModeValues) => void): readonly Handler[] {
  return [
    modeSenseHandler(cdb.ModeSense6, null),
    modeSenseHandler(cdb.ModeSense10, cdb.ModeSense10.fields.longLbaAccepted),
    modeSelectHandler(cdb.ModeSelect6, changed),
    modeSelectHandler(cdb.ModeSelect10, changed),
    readCapacity10Handler,
    readCapacity16Handler,
    readDefectDataHandler(cdb.ReadDefectData10),
    readDefectDataHandler(cdb.ReadDefectData12),
  ];
}
