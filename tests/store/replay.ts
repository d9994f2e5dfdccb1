// A seeded life of a store: writes, flushes, unmaps, deleted images and slots used again under tight space, cut short by
// power losses, deaths of the process and clean stops. After each cut the store is checked, opened and read against the oracle.

import { BlockOperation } from "../../lib/extent/operation.ts";
import { layoutFor } from "../../lib/store/format.ts";
import { checkStore, formatDisk, openStore, type Store, StoreOpenError } from "../../lib/store/mod.ts";
import type { OrderPoint } from "../../lib/store/order.ts";
import { Oracle, readStamp, sectorBytes, stampSector } from "./block_oracle.ts";
import { CrashDisk, Medium } from "./crash_disk.ts";
import { MemoryDisk } from "./memory_disk.ts";
import { identity, SeededRandom } from "./store_calls.ts";

const pageBytes = 8192;
const sectorsPerPage = pageBytes / sectorBytes;
const pagesPerImage = 60;
const operationsMax = 12;

interface HotPage {
  readonly image: number;
  readonly page: number;
}

/** Thrown with the seed's story when a promise was broken. */
export class Violation extends Error {
  override name = "Violation";
}

export interface ReplayResult {
  readonly powerLosses: number;
  readonly kills: number;
  readonly stops: number;
  readonly operations: number;
  readonly noSpace: number;
  readonly checkNotes: number;
  readonly checkRepairs: number;
  /** Crashes that left two slots for one page. */
  readonly doubles: number;
}

/** What a life is mostly about; "all" is the usual mixture. The others find rare faults sooner. */
export type Focus =
  | "all"
  /** Making the disk, cut short again and again. */
  | "making"
  /** A full disk of two entry blocks whose pages are given up and written again at once, seldom flushed. */
  | "rewriting"
  /** Short lives, with checks that repair and are cut short. */
  | "mending"
  /** Flushes of the disk that fail. */
  | "failing";

/** Runs one seed. Throws Violation when the store broke a promise, AssertionError when it broke an invariant. */
export async function replay(
  seed: number,
  omit: ReadonlySet<OrderPoint> = new Set(),
  focus: Focus = "all",
): Promise<ReplayResult> {
  return await new Replay(seed, omit, focus).run();
}

class Replay {
  readonly random: SeededRandom;
  readonly medium: Medium;
  readonly oracle = new Oracle(pagesPerImage, sectorsPerPage);
  readonly pages: number;
  disk: CrashDisk;
  store!: Store;
  images: number[] = [];
  nextImage = 1;
  nextStamp = 1;
  inFlight = 0;
  boot = 1;
  suspected = false;
  /** The store was told that initiators know of the power loss. */
  reported = false;
  deleting: { readonly image: number; done: boolean; failed: string }[] = [];
  fault = "";
  /** The last crash left entry sectors to mend. */
  torn = false;
  /** How eagerly this seed flushes: rare flushes leave more for a power loss to tear apart. */
  readonly flushChance: number;
  /** Pages just given up: writing them again at once gives them a second slot. */
  hot: HotPage[] = [];
  readonly counts = {
    powerLosses: 0,
    kills: 0,
    stops: 0,
    operations: 0,
    noSpace: 0,
    checkNotes: 0,
    checkRepairs: 0,
    doubles: 0,
  };

  constructor(readonly seed: number, readonly omit: ReadonlySet<OrderPoint>, readonly focus: Focus) {
    this.random = new SeededRandom(seed);
    // One entry sector, some sectors of one block, two blocks; always more pages than slots.
    const rewriting = focus === "rewriting";
    const slots = rewriting ? 121 + this.random.below(30) : this.random.pick([
      4 + this.random.below(8),
      16 + this.random.below(30),
      115 + this.random.below(20),
    ]);
    this.pages = Math.min(pagesPerImage, 2 + Math.ceil(slots / 3) + this.random.below(6));
    this.flushChance = rewriting ? 0.005 : this.random.pick([0.01, 0.06, 0.2]);
    const size = 131_072 + 16_384 + (slots + 1) * pageBytes;
    const layout = layoutFor(size, pageBytes)!;
    this.medium = new Medium(size, this.random, layout.dataOffset);
    this.disk = new CrashDisk(this.medium);
  }

  async run(): Promise<ReplayResult> {
    await this.makeStore(this.focus === "making" ? 0.9 : 0.3);
    if (this.focus === "making") return this.counts;
    await this.open();
    for (let i = 0; i < 3; i++) this.images.push(this.nextImage++);
    if (this.focus === "rewriting") await this.fill();
    const lives = 4 + this.random.below(5);
    for (let life = 0; life < lives; life++) {
      if (this.focus === "failing") this.disk.flushesToFailure = this.random.below(12);
      const short = this.focus === "all" || this.focus === "failing" ? this.random.chance(0.3) : true;
      await this.live(short ? this.random.below(this.focus === "all" ? 8 : 30) : 20 + this.random.below(150));
      await this.cut();
    }
    return this.counts;
  }

  /** Gives nearly every slot a page, and flushes. */
  async fill(): Promise<void> {
    const free = 9 + this.random.below(12); // enough that no flush is wanted to get slots back
    for (let n = this.store.usage().slots - free - 1; n >= 0; n--) {
      const [image, page] = [this.images[n % 3]!, Math.floor(n / 3)];
      if (page >= this.pages) continue;
      this.writePage(image, page);
      while (this.inFlight >= operationsMax) {
        this.disk.step();
        await null;
      }
    }
    await this.finishAll();
    this.flush();
    await this.finishAll();
  }

  writePage(image: number, page: number): void {
    const op = this.operation("write", image, page, 0, 1);
    const stamp = this.nextStamp++;
    op.buffer = new Uint8Array(sectorBytes);
    stampSector(op.buffer, 0, image, page, 0, stamp);
    this.oracle.begin(image, page, 0, 1, stamp);
    this.start(op, () => this.oracle.end(image, page, 0, 1, op.outcome === "done", false));
  }

  /** Makes the disk a store, perhaps with a power loss on the way, over what somebody else left there. */
  async makeStore(cutChance: number): Promise<void> {
    for (let i = 0; i < this.medium.cache.length; i++) this.medium.cache[i] = this.random.next() >>> 24;
    this.medium.durable.set(this.medium.cache);
    const before = { ...identity, diskId: "ffffffffffffffffffffffffffffffff", pageBytes };
    if (this.random.chance(0.5)) {
      await this.drive(formatDisk(this.disk, before, this.random));
      const old = await this.drive(openStore(this.disk, before, { bootId: "before" }));
      await this.drive(old.close());
      this.medium.harden([...this.medium.unflushed]);
    }
    for (let again = 0; again < 4 && this.random.chance(cutChance); again++) {
      await this.begin(formatDisk(this.disk, { ...identity, pageBytes }, this.random, this.omit), 14);
      this.end(true);
      await this.formattedOrNot();
    }
    await this.drive(formatDisk(this.disk, { ...identity, pageBytes }, this.random, this.omit));
    if (this.random.chance(0.5)) {
      this.end(true);
      try {
        const report = await checkStore(copyOf(this.medium));
        if (!report.ok || report.identity.diskId !== identity.diskId) {
          throw this.violation("the new store is bad");
        }
      } catch (error) {
        throw error instanceof StoreOpenError
          ? this.violation(`a new store was lost: ${error.message}`)
          : error;
      }
    }
  }

  /** A disk whose formatting was cut short is the old store, no store, or the new one, but none in ruins. */
  async formattedOrNot(): Promise<void> {
    try {
      const report = await checkStore(copyOf(this.medium));
      if (report.findings.some((f) => f.severity === "loss")) {
        throw this.violation(`half a format: ${report.findings.map((f) => f.text).join("; ")}`);
      }
    } catch (error) {
      if (!(error instanceof StoreOpenError) || !["notAStore", "damaged"].includes(error.kind)) throw error;
    }
  }

  /** Lets something begin that will not end. */
  async begin(promise: Promise<unknown>, stepsMax: number): Promise<void> {
    promise.catch(() => {});
    for (let n = this.random.below(stepsMax); n > 0; n--) {
      if (this.disk.held > 0) this.disk.step();
      for (let t = 0; t < 10; t++) await null;
    }
  }

  /** Work for a while. */
  async live(steps: number): Promise<void> {
    // A page that a crash left in two slots is among these: giving it up must not bring the older one back.
    if (this.torn && this.focus === "rewriting") {
      for (const page of this.hot) this.change("unmap", true, page);
    }
    for (let i = 0; i < steps; i++) {
      if (this.inFlight < operationsMax && this.random.chance(0.6)) this.submit();
      for (let n = this.random.below(4); n > 0 && this.disk.held > 0; n--) this.disk.step();
      if (this.deleting.length > 0) { for (let n = 0; n < 20; n++) await null; }
      this.settleDeletes();
      this.failOnFault();
    }
  }

  /** The end of one life: power loss, death of the process, or a clean stop (which may be cut short as well). */
  async cut(): Promise<void> {
    const how = this.random.below(10);
    let sure = true; // whether the store is known to have been marked open
    let closed = false;
    if (how < 3) {
      await this.finishAll();
      const closing = this.store.close();
      if (this.random.chance(0.6)) {
        const report = await this.drive(closing);
        closed = report.clean;
        if (!closed && !this.flushFailed) throw this.violation(`close ended as ${report.reason}`);
      } else {
        await this.begin(closing, 8);
        sure = false;
      }
      this.counts.stops++;
    }
    // The process lives long enough to note on the disk that a flush has failed.
    if (this.flushFailed) {
      this.disk.flushesToFailure = -1;
      await this.finishAll();
    }
    const lossy = this.flushFailed;
    const powerLost = how < 3 ? this.random.chance(0.7) : how < 8;
    this.end(powerLost);
    const suspectedBefore = this.suspected && !(closed && this.reported);
    await this.checkOffline(powerLost);
    // Opening may be cut short too, once or twice.
    for (let again = 0; again < 3 && this.random.chance(this.torn ? 0.7 : 0.2); again++) {
      await this.begin(this.openWith(), 12);
      this.end(powerLost);
      sure = false;
    }
    this.medium.failedFlushes = 0;
    await this.open();
    const { powerLossSuspected } = this.store;
    if (sure && !closed && powerLost && !powerLossSuspected) {
      throw this.violation("a power loss went unnoticed");
    }
    if (sure && closed && powerLossSuspected !== suspectedBefore) {
      throw this.violation("a clean close was forgotten");
    }
    if (this.suspected && !this.reported && !powerLossSuspected) {
      throw this.violation("an untold power loss was forgotten");
    }
    this.suspected = powerLossSuspected;
    this.reported = this.random.chance(0.7);
    if (this.reported) this.store.powerLossReported();
    await this.readAll(powerLost || lossy, powerLossSuspected);
    for (const d of this.deleting) this.images = this.images.filter((i) => i !== d.image);
    this.deleting = [];
    while (this.images.length < 3) this.images.push(this.nextImage++);
  }

  end(powerLost: boolean): void {
    this.inFlight = 0;
    if (powerLost) {
      this.counts.powerLosses++;
      this.boot++;
      this.disk.losePower();
    } else {
      this.counts.kills++;
      this.disk.kill();
    }
    this.disk = new CrashDisk(this.medium);
  }

  /** A flush of the disk has failed in this life: the store stops writing, and the next one must suspect a loss. */
  get flushFailed(): boolean {
    return !this.store.writable || this.medium.failedFlushes > 0;
  }

  openWith(): Promise<Store> {
    return openStore(this.disk, identity, { bootId: `boot-${this.boot}`, omit: this.omit });
  }

  async open(): Promise<void> {
    this.store = await this.drive(this.openWith());
  }

  /** `disk check` finds no fault and no loss; sometimes it repairs, and then finds nothing more. */
  async checkOffline(powerLost: boolean): Promise<void> {
    // Where the crash left something to mend, mending is done and cut short more often than elsewhere.
    const found = await checkStore(copyOf(this.medium), { readFree: false });
    this.torn = found.findings.some((f) => /torn|half written|older instance/.test(f.text));
    const repair = this.random.chance(this.focus === "mending" ? 0.8 : this.torn ? 0.5 : 0.1);
    const options = { repair: true, readFree: false, omit: this.omit };
    for (let again = 0; repair && again < 3 && this.random.chance(this.torn ? 0.8 : 0.3); again++) {
      await this.begin(checkStore(this.disk, options), 16);
      this.end(powerLost);
    }
    const report =
      await (repair ? this.drive(checkStore(this.disk, options)) : checkStore(copyOf(this.medium)));
    const bad = report.findings.filter((f) => f.severity !== "note" && !f.text.startsWith("superblock"));
    if (bad.length > 0) throw this.violation(`disk check found: ${bad.map((f) => f.text).join("; ")}`);
    if (report.findings.some((f) => f.text.includes("older instance"))) this.counts.doubles++;
    this.counts.checkNotes += report.findings.length;
    if (!repair) return;
    this.counts.checkRepairs++;
    const after = await checkStore(copyOf(this.medium), {});
    const left = after.findings.filter((f) => !/not closed cleanly|not every initiator/.test(f.text));
    // A loser's slot is free after the repair; it is seen to be zero before its next use.
    const unmended = left.filter((f) => !f.text.includes("hold old data"));
    if (unmended.length > 0) {
      throw this.violation(`disk check left: ${unmended.map((f) => f.text).join("; ")}`);
    }
  }

  // ---- the workload

  submit(): void {
    this.counts.operations++;
    if (this.random.chance(this.flushChance)) return this.flush();
    const dice = this.random.below(100);
    if (dice < 45) this.change("write");
    else if (dice < 70 && this.focus === "rewriting") this.change("unmap", true);
    else if (dice < 50) this.change("writeSame");
    else if (dice < 53) this.change("orWrite");
    else if (dice < 56) this.change("compareAndWrite");
    else if (dice < 80) this.change("unmap", true);
    else if (dice < 84) this.change("unmap");
    else if (dice < 96) this.read();
    else if (dice < 98) this.deleteImage();
  }

  livingImage(): number {
    return this.random.pick(this.images);
  }

  change(
    kind: "write" | "writeSame" | "orWrite" | "compareAndWrite" | "unmap",
    whole = false,
    hot: HotPage | null = this.pickHot(),
  ): void {
    const image = hot?.image ?? this.livingImage();
    if (!this.images.includes(image) || this.deleting.some((d) => d.image === image)) return;
    const page = hot?.page ?? this.random.below(this.pages);
    const one = kind === "compareAndWrite" || kind === "orWrite";
    const first = whole ? 0 : this.random.below(sectorsPerPage);
    let count = whole ? sectorsPerPage : one ? 1 : 1 + this.random.below(sectorsPerPage - first);
    if (kind === "write" && this.random.chance(0.1)) count = sectorsPerPage - first;
    if (this.oracle.busy(image, page, first, count)) return;
    const stamp = kind === "unmap" ? 0 : this.nextStamp++;
    const op = this.operation(kind, image, page, first, count);
    op.durable = this.random.chance(this.flushChance);
    op.mayUnmap = kind === "unmap";
    if (kind === "compareAndWrite" || kind === "orWrite") {
      const old = this.oracle.current(image, page, first);
      if (old === null) return;
      if (kind === "orWrite" && old !== 0) return; // OR of two stamps is no stamp
      op.buffer = new Uint8Array(2 * sectorBytes);
      const at = kind === "orWrite" ? 0 : sectorBytes;
      if (old !== 0) stampSector(op.buffer, 0, image, page, this.sameStamps.has(old) ? 0xffff : first, old);
      stampSector(op.buffer, at, image, page, first, stamp);
    } else if (kind === "writeSame") {
      op.buffer = new Uint8Array(sectorBytes);
      stampSector(op.buffer, 0, image, page, 0xffff, stamp);
      this.sameStamps.add(stamp);
    } else if (kind === "write") {
      op.buffer = new Uint8Array(count * sectorBytes);
      for (let s = 0; s < count; s++) stampSector(op.buffer, s * sectorBytes, image, page, first + s, stamp);
    }
    this.oracle.begin(image, page, first, count, stamp);
    this.start(op, () => {
      if (op.outcome === "noSpace") this.counts.noSpace++;
      else if (op.outcome !== "done" && !this.flushFailed) this.fault ||= `${kind} ended as ${op.outcome}`;
      const done = op.outcome === "done";
      if (whole && done && hot === null) this.hot = [...this.hot.slice(-2), { image, page }];
      // An unmap promises durability like a write when it is asked for it.
      this.oracle.end(image, page, first, count, done, done && op.durable);
    });
  }

  pickHot(): HotPage | null {
    const wanted = this.random.chance(this.focus === "rewriting" ? 0.7 : 0.3);
    return wanted && this.hot.length > 0 ? this.random.pick(this.hot) : null;
  }

  readonly sameStamps = new Set<number>();

  flush(): void {
    const at = this.oracle.tick();
    const op = this.operation("flush", this.livingImage(), 0, 0, 0);
    this.start(op, () => {
      if (op.outcome === "done") return this.oracle.flushed(at);
      if (!this.flushFailed) this.fault ||= `flush ended as ${op.outcome}`;
    });
  }

  read(): void {
    const image = this.livingImage();
    if (this.deleting.some((d) => d.image === image)) return;
    const page = this.random.below(this.pages);
    const first = this.random.below(sectorsPerPage);
    const count = 1 + this.random.below(sectorsPerPage - first);
    const op = this.operation("read", image, page, first, count);
    op.buffer = new Uint8Array(count * sectorBytes).fill(0xee);
    const stable: (number | null)[] = [];
    for (let s = 0; s < count; s++) stable.push(this.oracle.current(image, page, first + s));
    this.start(op, () => {
      if (op.outcome !== "done") this.fault ||= `read ended as ${op.outcome}`;
      for (let s = 0; s < count; s++) {
        const now = this.oracle.current(image, page, first + s);
        if (stable[s] === null || now !== stable[s]) continue; // changed meanwhile: either is right
        const found = readStamp(op.buffer, s * sectorBytes, image, page, first + s);
        if (found !== now) this.fault ||= `read of ${image}/${page}/${first + s}: ${found}, not ${now}`;
      }
    });
  }

  deleteImage(): void {
    const image = this.livingImage();
    if (this.deleting.length > 0 || this.images.length < 2) return;
    if (this.oracle.busy(image, 0, 0, this.pages * sectorsPerPage)) return;
    for (let p = 0; p < this.pages; p++) this.oracle.begin(image, p, 0, sectorsPerPage, 0);
    const record = { image, done: false, failed: "" };
    this.deleting.push(record);
    this.store.deleteImage(image).then(() => record.done = true, (e) => record.failed = String(e));
  }

  settleDeletes(): void {
    for (const d of this.deleting) {
      if (d.failed !== "" && !this.flushFailed) this.fault ||= `delete failed: ${d.failed}`;
      if (!d.done) continue;
      for (let p = 0; p < this.pages; p++) this.oracle.end(d.image, p, 0, sectorsPerPage, true, true);
      this.images = this.images.filter((i) => i !== d.image);
      this.images.push(this.nextImage++);
    }
    this.deleting = this.deleting.filter((d) => !d.done);
  }

  operation(
    kind: BlockOperation["kind"],
    image: number,
    page: number,
    first: number,
    count: number,
  ): BlockOperation {
    const op = new BlockOperation();
    op.kind = kind;
    op.image = image;
    op.page = page;
    op.offsetBytes = first * sectorBytes;
    op.lengthBytes = count * sectorBytes;
    return op;
  }

  start(op: BlockOperation, done: () => void): void {
    this.inFlight++;
    const disk = this.disk;
    op.done = () => {
      if (this.disk !== disk) throw this.violation("an operation ended after its process");
      this.inFlight--;
      done();
    };
    this.store.submit(op);
  }

  async finishAll(): Promise<void> {
    while (this.inFlight > 0 || this.disk.held > 0 || this.deleting.some((d) => d.failed === "")) {
      if (this.disk.held > 0) this.disk.step();
      else await tick();
      for (let n = 0; n < 5; n++) await null;
      this.settleDeletes();
      this.failOnFault();
    }
  }

  /** Reads every block of every image there ever was. */
  async readAll(powerLost: boolean, suspected: boolean): Promise<void> {
    for (let image = 1; image < this.nextImage; image++) {
      for (let page = 0; page < this.pages; page++) {
        const op = this.operation("read", image, page, 0, sectorsPerPage);
        op.buffer = new Uint8Array(pageBytes).fill(0xee);
        this.start(op, () => {
          if (op.outcome !== "done") this.fault ||= `read after opening ended as ${op.outcome}`;
          for (let s = 0; s < sectorsPerPage; s++) {
            const found = readStamp(op.buffer, s * sectorBytes, image, page, s);
            const stamp = typeof found === "number" ? found : -1;
            if (stamp < 0) this.fault ||= String(found);
            this.fault ||= this.oracle.reopened(image, page, s, stamp, powerLost, suspected) ?? "";
          }
        });
      }
      while (this.inFlight > 0) {
        if (this.disk.held > 0) this.disk.step();
        else await tick();
      }
    }
    this.failOnFault();
  }

  /** Lets the disk work until the promise settles. */
  async drive<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const mark = () => void (settled = true);
    promise.then(mark, mark);
    for (let idle = 0; !settled;) {
      if (this.disk.held > 0) this.disk.step();
      else if (++idle > 1000) throw this.violation("the store waits for nothing");
      for (let n = 0; n < 5 && !settled; n++) await null;
    }
    return await promise;
  }

  failOnFault(): void {
    if (this.fault !== "") throw this.violation(this.fault);
  }

  violation(text: string): Violation {
    return new Violation(`seed ${this.seed}: ${text} (${JSON.stringify(this.counts)})`);
  }
}

function copyOf(medium: Medium): MemoryDisk {
  return new MemoryDisk("copy", medium.cache.slice());
}

function tick(): Promise<void> {
  return new Promise((resolve) => queueMicrotask(resolve));
}
