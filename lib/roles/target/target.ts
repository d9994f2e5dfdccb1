// The role "target": one member of a group, composed of metadata, stores, router, device servers, sessions and portals.
// Everything of the world is handed in, so that the simulator can start the same member.

import { BufferPool } from "../../base/buffer_pool.ts";
import type { BootClock, Clock } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { FlowBorrower } from "../../base/flow.ts";
import type { Log } from "../../base/log.ts";
import type { Network, SocketAddress } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import type { MemberConfig } from "../../config/config.ts";
import { reconcileDisks, reconcileVolumes, type VolumeWish, volumeWish } from "../../config/reconcile.ts";
import { chapSecretProblem, secretOfFile } from "../../config/secret.ts";
import type { LeaseTimes } from "../../meta/kept_lease.ts";
import { joinGroup, joinMember, listDisks, type SecretFile } from "../../meta/group.ts";
import type { Metadata, Watch } from "../../meta/metadata.ts";
import { type DiskRecord, keys, type MemberRecord } from "../../meta/records.ts";
import { ControlError, type MemberControl, type VolumeCreation } from "../../mgmt/control.ts";
import { revisionLevel, version } from "../../mgmt/version.ts";
import { VolumeAdmin } from "../../mgmt/volume_admin.ts";
import { type Machine, unknownMachine } from "../../base/machine.ts";
import { Exclusion, Hold } from "../../device/unit_gate.ts";
import { type IncomingPages, isProxyName, memberName } from "../../forward/mod.ts";
import { Router } from "../../route/router.ts";
import { ownBuffersBytes } from "../../session/session_buffers.ts";
import type { OrderPoint } from "../../store/mod.ts";
import { MessageKind } from "../../wire/scsi/member_message.ts";
import { TargetNode } from "../../session/target_node.ts";
import type { TargetPortal } from "../../session/target_directory.ts";
import { BalanceRecords } from "./balance_records.ts";
import { Balancing } from "./balancing.ts";
import { TargetControl } from "./control.ts";
import type { DataPlane } from "./data_plane.ts";
import { Deletions, waitingFor } from "./deletion.ts";
import { type OpenDisk, openDisks, type ServedDisk } from "./disks.ts";
import { Forwarding } from "./forwarding.ts";
import { Arrivals } from "./arrivals.ts";
import { LeaseGate } from "./lease_gate.ts";
import { DrainProgress } from "./drain_progress.ts";
import { Drains } from "./drains.ts";
import { MemberAdmin } from "../../mgmt/member_admin.ts";
import { Mover } from "./mover.ts";
import { PageDecider } from "./page_decider.ts";
import { noteLostWrites, recordLostWrites } from "./lost_writes.ts";
import { Members, type ProcessIdentity } from "./members.ts";
import { Multipath } from "./multipath.ts";
import { Portals } from "./portals.ts";
import type { MoveOrderPoint } from "../../balance/page_move.ts";
import { Units } from "./units.ts";
import { Usage } from "./usage.ts";
import { Volumes } from "./volumes.ts";

export interface TargetParts {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly network: Network;
  readonly log: Log;
  readonly metadata: Metadata;
  readonly secretFile: SecretFile;
  readonly openDisk: OpenDisk;
  readonly exists: (path: string) => boolean;
  /** Text of a file that the configuration names for a CHAP secret. */
  readonly readSecretFile: (path: string) => Promise<string>;
  /** Identifier of this boot of the machine (lib/io/files.ts). */
  readonly bootId: string;
  readonly engine: { readonly name: string; readonly reason: string };
  /** Other threads that serve connections; none when left out. */
  readonly dataPlane?: DataPlane | null;
  /** Data buffers of this thread, bytes; limits.dataBufferBytesMax when left out. */
  readonly dataBufferBytes?: number;
  /** Connections of other members that this machine can send on; absent: none, and none of its own are lent. */
  readonly flows?: FlowBorrower | null;
  /** What leases are counted by; absent: `clock`, as in a simulator, which has one. */
  readonly bootClock?: BootClock;
  /** The process that is the member; absent: the only one of its name on this boot, as in a simulator. */
  readonly process?: ProcessIdentity;
  /** Absent: nothing is known of it, as in a simulator. */
  readonly machine?: Machine;
  /** Absent: as limits say. */
  readonly leaseTimes?: LeaseTimes;
  /** Data buffers of all sessions; absent: limits.dataBufferBytesMax of them. */
  readonly pool?: BufferPool;
  /** Tests only: order points that the stores leave out. */
  readonly omit?: ReadonlySet<OrderPoint>;
  /** Tests only: points of the order of page moves that are left out. */
  readonly omitInMoves?: ReadonlySet<MoveOrderPoint>;
}

/** Metadata that was away when a watch had to begin anew is tried again after this time. */
const catchUpRetryMs = 1_000;
/** And when a volume of the configuration could not be made, after this one. */
const makeRetryMs = 5_000;

export class Target {
  readonly control: MemberControl;
  readonly #parts: TargetParts;
  readonly #state: Assembled;
  /** As the member was started. */
  readonly #config: MemberConfig;
  #notices: readonly string[] = [];
  /** Notices of the start, which a reload keeps. */
  readonly #lasting: string[];
  #watch: Watch | null = null;
  #begun = false;
  #stopped: Promise<void> | null = null;
  /** Reloads are done one after the other. */
  #reloading: Promise<void> = Promise.resolve();

  /** Moves pages of this member to others. */
  get mover(): Mover {
    return this.#state.mover;
  }

  /** For tests and the simulator: what the member is made of. */
  get router(): Router {
    return this.#state.router;
  }

  get volumes(): Volumes {
    return this.#state.volumes;
  }

  get disks(): readonly ServedDisk[] {
    return this.#state.disks;
  }

  get incoming(): IncomingPages {
    return this.#state.forwarding.incoming;
  }

  /** Starts the member; rejects, with everything closed again, when it cannot serve. */
  static async start(config: MemberConfig, parts: TargetParts): Promise<Target> {
    let target: Target | null = null;
    const state = await assemble(config, parts, async () => await target?.catchUp());
    target = new Target(config, parts, state);
    try {
      await target.#begin();
      return target;
    } catch (error) {
      await target.stop();
      throw error;
    }
  }

  private constructor(config: MemberConfig, parts: TargetParts, state: Assembled) {
    this.#config = config;
    this.#parts = parts;
    this.#state = state;
    this.#lasting = [...state.groupNotices];
    this.control = new TargetControl({
      ...state,
      metadata: parts.metadata,
      clock: parts.clock,
      engine: parts.engine,
      exists: parts.exists,
      balanceSettings: config.balance,
      workers: () => parts.dataPlane?.connections ?? null,
      portals: () => state.portals.states(),
      notices: () => [
        ...state.members.notices(),
        ...state.forwarding.notices(),
        ...state.decider.notices(),
        ...this.#notices,
      ],
      ready: () => this.#begun && this.#stopped === null && anyListens(state.portals),
    });
  }

  async #begin(): Promise<void> {
    const { metadata, log } = this.#parts;
    const { admin, volumes, disks, portals } = this.#state;
    const orphans = await admin.claimImages(disks.flatMap(({ store }) => store.images()));
    if (orphans.length > 0) {
      this.#lasting.push(
        `The disks hold pages of ${orphans.length} volumes that the group does not know (images ${
          orphans.join(", ")
        }): ` +
          "was the metadata lost or put back from an old copy? Nothing of them is given back.",
      );
    }
    await this.#state.forwarding.follow();
    await this.#state.members.follow();
    if (this.#state.members.fellows().length > 0) await this.#state.drains.follow();
    await this.#state.balanceRecords.follow();
    for (const volume of await admin.deleting()) {
      log.info("going on with the deletion of a volume", { volume: volume.name });
      await this.#state.deletions.run(volume).then((others) => {
        if (others.length > 0) log.info(waitingFor(volume, others));
      }, (error) => {
        if (!(error instanceof ControlError)) throw error;
        this.#lasting.push(error.message); // the other volumes are served all the same
      });
    }
    this.#lasting.push(...await noteLostWrites(metadata, this.#parts.clock, disks));
    await this.#reconcile(this.#config, await this.#wishes(this.#config));
    const { entries, revision } = await metadata.list(keys.volumePrefix);
    for (const { key } of entries) await volumes.refresh(key.slice(keys.volumePrefix.length));
    this.#follow(revision);
    await this.#state.units.follow();
    for (const address of this.#config.member.portals) await portals.open(address);
    this.#begun = true;
    this.#state.forwarding.ready();
    this.#state.decider.start();
    this.#state.fellowsChanged();
    this.#state.members.up();
    this.#state.balancing.start();
    if (!anyListens(portals)) log.warn("no portal listens yet");
  }

  /**
   * Takes over what a running member can take over of a new configuration: volumes and portals that came in addition.
   * Everything else is named in the log and in status; it needs a restart. Rejects, with nothing changed, when a file of
   * a secret is wrong.
   */
  reload(config: MemberConfig): Promise<void> {
    const done = this.#reloading.then(() => this.#reload(config));
    this.#reloading = done.catch(() => {});
    return done;
  }

  async #reload(config: MemberConfig): Promise<void> {
    if (this.#stopped !== null) return;
    const wishes = await this.#wishes(config);
    const open = this.#state.portals.states().map(({ address }) => address);
    await this.#reconcile(config, wishes, restartNotices(this.#config, config, open));
    for (const address of config.member.portals) {
      if (this.#state.portals.has(address)) continue;
      await this.#state.portals.open(address).catch((error) => this.#notice((error as Error).message));
    }
    this.#parts.log.info("configuration reloaded");
  }

  /**
   * Ends the member: no new logins, commands in flight are finished and answered, sessions ended, disks flushed and
   * marked clean. `progress` gets a sentence a step. Metadata stays open: it is the caller's.
   */
  stop(progress: (step: string) => void = () => {}): Promise<void> {
    this.#stopped ??= this.#stop(progress);
    return this.#stopped;
  }

  async #stop(progress: (step: string) => void): Promise<void> {
    const { portals, node, volumes, members, forwarding, mover, units } = this.#state;
    this.#watch?.close();
    this.#state.balancing.close();
    this.#state.balanceRecords.close();
    members.draining();
    this.#state.decider.close();
    this.#state.drains.close();
    mover.close();
    progress("no more logins; finishing commands in flight");
    await portals.close();
    // By then nobody is there any more to be answered, and another member may not end what it has for as long as it likes.
    const late = this.#parts.clock.after(limits.stopCloseTimeMs, () => {
      forwarding.forwarder.close();
      units.close();
    });
    await new Promise<void>((done) => node.stop(done));
    late.cancel();
    await volumes.close("the member is stopping");
    units.close();
    this.#state.usage.close();
    await forwarding.close();
    progress("flushing disks");
    this.#parts.dataPlane?.closeDisks();
    await closeDisks(this.#state.disks, this.#parts);
    await members.leave();
    progress("stopped");
  }

  /** The volumes of the file with their secrets read. */
  #wishes(config: MemberConfig): Promise<VolumeWish[]> {
    return Promise.all(config.volumes.map((v) => volumeWish(v, (path) => this.#readSecret(path))));
  }

  async #reconcile(
    config: MemberConfig,
    wishes: readonly VolumeWish[],
    notices: readonly string[] = [],
  ): Promise<void> {
    const { metadata } = this.#parts;
    const { admin } = this.#state;
    this.#notices = [];
    for (const notice of [...this.#lasting, ...notices]) this.#notice(notice);
    const { entries } = await metadata.list(keys.volumeNamePrefix);
    const remembered = new Set(entries.map(({ key }) => key.slice(keys.volumeNamePrefix.length)));
    const volumePlan = reconcileVolumes(config.file, wishes, await admin.list(), remembered);
    const diskPlan = reconcileDisks(config.file, config.member.name, config.disks, await listDisks(metadata));
    for (const notice of [...diskPlan.notices, ...volumePlan.notices]) this.#notice(notice);
    for (const { line: _line, ...creation } of volumePlan.create) {
      try {
        await this.#make(creation);
      } catch (error) {
        if (!(error instanceof ControlError)) throw error;
        this.#notice(error.message); // the other volumes are served all the same
        if (error.kind === "unavailable") this.#makeLater(creation, error.message);
      }
    }
  }

  async #make(creation: VolumeCreation): Promise<void> {
    const { admin, volumes } = this.#state;
    const created = await admin.createOnce(creation);
    if (created === null) return; // another member was faster
    this.#parts.log.info("volume is made", { volume: creation.name, sizeBytes: creation.sizeBytes });
    for (const warning of created.warnings) this.#notice(warning);
    await volumes.refresh(creation.name);
  }

  /** The metadata was away; nobody else would make the volume when it is back. */
  #makeLater(creation: VolumeCreation, notice: string): void {
    this.#parts.clock.after(makeRetryMs, async () => {
      if (this.#stopped !== null) return;
      try {
        await this.#make(creation);
        this.#notices = this.#notices.filter((sentence) => sentence !== notice);
      } catch (error) {
        if (!(error instanceof ControlError)) throw error;
        if (error.kind === "unavailable") this.#makeLater(creation, notice);
        else this.#notice(error.message);
      }
    });
  }

  async #readSecret(path: string): Promise<string> {
    const secret = secretOfFile(await this.#parts.readSecretFile(path));
    const problem = chapSecretProblem(secret);
    if (problem !== null) throw new Error(`Cannot use the CHAP secret of "${path}": ${problem}.`);
    return secret;
  }

  #notice(sentence: string): void {
    this.#notices = [...this.#notices, sentence];
    this.#parts.log.warn(sentence);
  }

  /** Keeps the volumes in step with the metadata, whoever changes it. */
  #follow(revision: number): void {
    const { metadata } = this.#parts;
    const name = (key: string) => key.slice(keys.volumePrefix.length);
    this.#watch = metadata.watch(
      keys.volumePrefix,
      revision,
      (events) => {
        for (const event of events) {
          void this.#state.volumes.refresh(name(event.kind === "put" ? event.entry.key : event.key));
        }
      },
      () => this.#catchUpSoon(),
    );
  }

  #catchUpSoon(): void {
    this.catchUp().catch((error) => {
      if (this.#stopped !== null) return;
      this.#parts.log.warn("cannot read the volumes anew; trying again", {
        reason: (error as Error).message,
      });
      this.#parts.clock.after(catchUpRetryMs, () => this.#catchUpSoon());
    });
  }

  /** The watch fell too far behind, or the lease was away for a while: everything is read again. */
  async catchUp(): Promise<void> {
    await this.#state.units.catchUp();
    if (!this.#begun || this.#stopped !== null) return; // the start reads it all
    this.#watch?.close();
    const { entries, revision } = await this.#parts.metadata.list(keys.volumePrefix);
    const names = new Set(entries.map(({ key }) => key.slice(keys.volumePrefix.length)));
    for (const { record } of this.#state.volumes.served()) names.add(record.name);
    for (const name of names) await this.#state.volumes.refresh(name);
    if (this.#stopped === null) this.#follow(revision);
  }
}

function anyListens(portals: Portals): boolean {
  return portals.states().some(({ state }) => state === "listening");
}

interface Assembled {
  readonly group: Awaited<ReturnType<typeof joinGroup>>["group"];
  readonly groupNotices: readonly string[];
  readonly member: MemberRecord;
  readonly members: Members;
  readonly disks: readonly ServedDisk[];
  readonly admin: VolumeAdmin;
  readonly volumes: Volumes;
  readonly node: TargetNode;
  readonly portals: Portals;
  readonly router: Router;
  readonly forwarding: Forwarding;
  readonly deletions: Deletions;
  readonly multipath: Multipath;
  readonly usage: Usage;
  readonly mover: Mover;
  readonly decider: PageDecider;
  readonly drains: Drains;
  readonly drainProgress: DrainProgress;
  readonly memberAdmin: MemberAdmin;
  readonly units: Units;
  /** Makes everything here know the members there are now. */
  readonly fellowsChanged: () => void;
  readonly balancing: Balancing;
  readonly balanceRecords: BalanceRecords;
}

/** Joins the group, opens the disks, and puts the parts together; nothing listens yet. */
async function assemble(
  config: MemberConfig,
  parts: TargetParts,
  returned: () => Promise<void>,
): Promise<Assembled> {
  const { metadata, random, clock, network, log } = parts;
  const { group, secret, created, differences } = await joinGroup(
    metadata,
    config.group,
    parts.secretFile,
    random,
    clock,
  );
  if (created) log.info("group is made", { group: group.name, secretFile: parts.secretFile.path });
  const member = await joinMember(metadata, config.member.name, random);
  const dataPlane = parts.dataPlane ?? null;
  const extended = (untilMs: number) => dataPlane?.setLease(untilMs);
  const members = await Members.join(config.member, {
    ...parts,
    group,
    secret,
    member,
    returned,
    extended,
    fellowsChanged: () => fellowsChanged(),
  });
  let disks: ServedDisk[];
  try {
    disks = await openDisks(config.disks, { ...parts, group, member });
  } catch (error) {
    await members.leave();
    throw error;
  }
  await dataPlane?.ready();
  dataPlane?.setDisks(disks);

  const router = new Router();
  for (const { record, store } of disks) router.setLocal(record.placement, store);
  const portalsListening = (): TargetPortal[] =>
    portals.states().filter(({ state }) => state === "listening").map(({ address }) => portalOf(address));
  const portalOf = (address: SocketAddress): TargetPortal => ({
    address,
    targetPortalGroupTag: member.targetPortalGroupTag,
  });
  const units: Units = new Units({ metadata, clock, log, members, messenger: () => forwarding.messenger });
  const multipath: Multipath = new Multipath({
    clock,
    log,
    iqnPrefix: group.iqnPrefix,
    secret,
    member,
    portals: portalsListening,
    fellows: () => members.fellows(),
    run: () => members.run,
    disks: () => forwarding.disks(),
    table: (image) => router.table(image),
  });
  const volumes = new Volumes({
    units,
    metadata,
    clock,
    router,
    blocks: new LeaseGate(router, members.held),
    member,
    log,
    iqnPrefix: group.iqnPrefix,
    revision: revisionLevel(version),
    portals: portalsListening,
    fellows: () => members.fellows(),
    deleting: (volume) => {
      deletions.run(volume).catch((error: Error) => {
        log.warn("a deletion could not be finished", { volume: volume.name, reason: error.message });
      });
    },
    multipath,
    dataPlane,
    routesLearned: (image, opened) => {
      arrivals.routesLearned(image);
      if (opened) void arrivals.giveBackLeftovers(image);
    },
    leaving: (image) => {
      void mover.abort(image);
      forwarding.incoming.forgetImage(image);
    },
    dropSessions: (name, reason) => node.dropTarget(name, reason),
  });
  const bufferBytes = parts.dataBufferBytes ?? limits.dataBufferBytesMax;
  const node = new TargetNode({
    clock,
    random,
    log,
    pool: parts.pool ?? new BufferPool(bufferBytes, ownBuffersBytes(bufferBytes)),
    directory: volumes,
    relativeTargetPort: member.relativeTargetPort,
    ...(dataPlane === null ? {} : { place: (target) => dataPlane.place(target) }),
    redirect: (login, decided) => balancing.redirect(login, decided),
  });
  dataPlane?.setNode(node);
  const portals = new Portals(
    network,
    clock,
    log,
    (address, stream) => node.accept(portalOf(address), stream),
  );
  const exclude = (image: number, run: (ended: () => void) => void) => excludeThreads(volumes, image, run);
  const forwarding = new Forwarding({
    ...parts,
    group,
    secret,
    member,
    peer: config.member.peer,
    router,
    members,
    exclude,
    shortCuts: parts.flows === undefined || parts.flows === null
      ? null
      : { flows: parts.flows, bytesMin: config.member.shortCutBytes },
    leaving: (image: number, page: number): boolean => mover.moves(image, page),
    storeOf: (placement) => disks.find(({ record }) => record.placement === placement)?.store ?? null,
    behind: (image) => volumes.behind(image),
    homeReturned: () => volumes.hearLostWrites(),
  });
  forwarding.messages.listen(MessageKind.unitChange, units.hear);
  const balanceRecords = new BalanceRecords(metadata, clock, config.group.loginPolicy);
  const balancing = new Balancing({
    clock,
    log,
    machine: parts.machine ?? unknownMachine,
    member,
    members,
    portals: config.member.portals,
    settings: config.balance,
    records: balanceRecords,
    isProxy: (initiator) => isProxyName(group.iqnPrefix, initiator),
    isDraining: (name) => drains.has(name),
    node,
    volumes,
    table: (image) => router.table(image),
    forwarding,
  });
  const fellows = () => members.fellows();
  const drains = new Drains(metadata, clock, () => decider.soon());
  const draining = (name: string) => drains.has(name);
  const usage = new Usage({
    metadata,
    clock,
    disks,
    groupDisks: () => forwarding.disks(),
    fellows,
    draining,
  });
  const admin = new VolumeAdmin({ metadata, random, clock, group, capacity: () => usage.capacity() });
  const quiet = async (image: number) => {
    await mover.abort(image);
    await forwarding.quiet(image);
  };
  const prefix = memberName(group.iqnPrefix, "");
  const arrivals = new Arrivals({
    metadata,
    log,
    router,
    disks,
    dataPlane,
    exclude,
    incoming: forwarding.incoming,
    pageBytes: group.pageBytes,
    nameOf: (initiator) => initiator.slice(prefix.length),
    runOf: (name) => members.find(name)?.run ?? null,
  });
  dataPlane?.setMayShow((image, page, placement) => arrivals.mayShow(image, page, placement));
  const mover: Mover = new Mover({
    metadata,
    clock,
    log,
    member,
    members,
    disks,
    router,
    forwarder: forwarding.forwarder,
    memberOf: (placement) => forwarding.memberOf(placement),
    volumes,
    dataPlane,
    exclude,
    pageBytes: group.pageBytes,
    commands: () => [...node.sessions()].reduce((sum, session) => sum + session.commands, 0),
    ...(parts.omitInMoves === undefined ? {} : { omit: parts.omitInMoves }),
  });
  const deletions = new Deletions({ metadata, member, disks, admin, quiet });
  const decider = new PageDecider({ clock, log, member, disks, router, volumes, usage, drains, mover });
  const fellowsChanged = () => {
    forwarding.fellowsChanged();
    arrivals.fellowsChanged();
    if (fellows().length > 0) drains.begin();
    void units.tidy();
    void volumes.fellowsChanged();
    multipath.planChanged();
    void usage.tell();
  };
  disks.forEach((disk, index) => watchDisk(disk, index, volumes, parts));
  return {
    group,
    groupNotices: differences,
    member,
    members,
    disks,
    admin,
    volumes,
    node,
    portals,
    router,
    forwarding,
    deletions,
    multipath,
    usage,
    mover,
    decider,
    drains,
    drainProgress: new DrainProgress(drains, (name) => {
      let pages = 0;
      for (const { placement, member } of forwarding.disks()) {
        if (member !== name) continue;
        for (const { record } of volumes.served()) {
          pages += router.table(record.image)?.pagesOf(placement) ?? 0;
        }
      }
      return pages;
    }),
    memberAdmin: new MemberAdmin(metadata, clock),
    units,
    balancing,
    balanceRecords,
    fellowsChanged,
  };
}

/** Other threads must not transfer to the image while `run` is at it. */
function excludeThreads(volumes: Volumes, image: number, run: (ended: () => void) => void): void {
  const gate = volumes.served().find(({ record }) => record.image === image)?.gated?.gate;
  if (gate === undefined) return run(() => {});
  const hold: Hold = new Hold(Exclusion.transfers, () => run(() => gate.release(hold)));
  gate.take(hold);
}

/** Passes what happens on a disk on to the operator and to initiators. */
function watchDisk({ record, store }: ServedDisk, index: number, volumes: Volumes, parts: TargetParts): void {
  const { log } = parts;
  store.onThreshold = (percent, usage) => {
    log.warn("disk is filling up", { path: record.path, percent, used: usage.usedSlots, slots: usage.slots });
    for (const { record: volume, server } of volumes.served()) {
      if (store.allocatedPages(volume.image) > 0) server.raise("softThreshold");
    }
  };
  store.onWritesStopped = () => {
    parts.dataPlane?.showDisk(index);
    log.error("a flush failed: the disk takes no more writes until the member is started again", {
      path: record.path,
    });
    void keepLostWrites(record, parts); // at once: the process may not live to close the disk
  };
}

async function closeDisks(disks: readonly ServedDisk[], parts: TargetParts): Promise<void> {
  for (const { record, disk, store } of disks) {
    const report = await store.close();
    await disk.close();
    if (report.clean) continue;
    parts.log.error("disk was not closed cleanly", { path: record.path, reason: report.reason });
    await keepLostWrites(record, parts);
  }
}

/** A flush failed: what it should have made durable may be gone, also for those who would have flushed later. */
async function keepLostWrites(record: DiskRecord, { metadata, clock, log }: TargetParts): Promise<void> {
  try {
    await recordLostWrites(metadata, clock, [record.placement]);
  } catch (error) {
    log.error("cannot keep that writes may be lost: the next start will not tell initiators", {
      path: record.path,
      reason: (error as Error).message,
    });
  }
}

/** What differs from the start and cannot be taken over while running; `open`: portals that are open. */
function restartNotices(
  before: MemberConfig,
  after: MemberConfig,
  open: readonly SocketAddress[],
): string[] {
  const out: string[] = [];
  const changed = (what: string, pick: (config: MemberConfig) => unknown) => {
    if (JSON.stringify(pick(before)) !== JSON.stringify(pick(after))) {
      out.push(`The configuration's ${what} changed: restart the member for it to take effect.`);
    }
  };
  changed("[group]", (c) => c.group);
  changed("[member] settings beside its portals", ({ member: { portals: _, ...rest } }) => rest);
  changed("[balance]", (c) => c.balance);
  changed("[[disk]] list", (c) => c.disks.map(({ path, sizeBytes }) => [path, sizeBytes]));
  const gone = open.filter((a) =>
    !after.member.portals.some((b) => a.hostname === b.hostname && a.port === b.port)
  );
  if (gone.length > 0) {
    out.push("A portal was taken out of the configuration: it is served until the member is restarted.");
  }
  return out;
}
