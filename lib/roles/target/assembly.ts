// Of what a member of a group is composed, and how the parts know each other. Nothing listens yet.

import { type BufferMemory, BufferPool } from "../../base/buffer_pool.ts";
import type { BootClock, Clock } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { FloatingAddress } from "../../base/floating_address.ts";
import type { FlowBorrower, FlowHome, FlowTaker } from "../../base/flow.ts";
import type { Log } from "../../base/log.ts";
import type { Network, SocketAddress } from "../../base/network.ts";
import type { PrivateFile } from "../../base/private_file.ts";
import type { RandomSource } from "../../base/random.ts";
import type { MemberConfig } from "../../config/config.ts";
import type { LeaseTimes } from "../../meta/kept_lease.ts";
import { joinGroup, joinMember } from "../../meta/group.ts";
import type { Metadata } from "../../meta/metadata.ts";
import type { MemberRecord } from "../../meta/records.ts";
import { revisionLevel } from "../../mgmt/version.ts";
import { VolumeAdmin } from "../../mgmt/volume_admin.ts";
import { type Machine, unknownMachine } from "../../base/machine.ts";
import { Exclusion, Hold } from "../../device/unit_gate.ts";
import { isProxyName, memberName } from "../../forward/mod.ts";
import { Router } from "../../route/router.ts";
import { ownBuffersBytes } from "../../session/session_buffers.ts";
import { Egress, worthShortCut } from "../../shortcut/mod.ts";
import type { OrderPoint } from "../../store/mod.ts";
import { MessageKind } from "../../wire/scsi/member_message.ts";
import { TargetNode } from "../../session/target_node.ts";
import type { TargetPortal } from "../../session/target_directory.ts";
import { BalanceRecords } from "./balance_records.ts";
import { Balancing } from "./balancing.ts";
import type { DataPlane } from "./data_plane.ts";
import { Deletions } from "./deletion.ts";
import { type OpenDisk, openDisks, type ServedDisk } from "./disks.ts";
import { Forwarding, type ShortCutParts } from "./forwarding.ts";
import { Arrivals } from "./arrivals.ts";
import { GroupAddress } from "./group_address.ts";
import { LeaseGate } from "./lease_gate.ts";
import { DrainProgress } from "./drain_progress.ts";
import { Drains } from "./drains.ts";
import { MemberAdmin } from "../../mgmt/member_admin.ts";
import { HeatBalance } from "./heat_balance.ts";
import { HeatMeter } from "./heat_meter.ts";
import { Mover } from "./mover.ts";
import { PageDecider } from "./page_decider.ts";
import { Members, type ProcessIdentity } from "./members.ts";
import { Multipath } from "./multipath.ts";
import { claimPortals, takeHandedOver } from "./portal_claim.ts";
import { Portals } from "./portals.ts";
import { SessionMoves } from "./session_moves.ts";
import type { MoveOrderPoint } from "../../balance/page_move.ts";
import type { VolumeState } from "../../balance/page_plan.ts";
import { Units } from "./units.ts";
import { Usage } from "./usage.ts";
import { Volumes } from "./volumes.ts";
import { watchDisk } from "./disk_watch.ts";

export interface TargetParts {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly network: Network;
  readonly log: Log;
  readonly metadata: Metadata;
  readonly secretFile: PrivateFile;
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
  readonly flows?: (FlowBorrower & FlowHome & FlowTaker) | null;
  /** For connections that outlive this process; absent: none does. */
  readonly handedOverFile?: PrivateFile;
  /** For the group's address, if it has one; absent: this member is no candidate for it. */
  readonly floatingAddress?: FloatingAddress | null;
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
  /** Of data buffers, those of device servers included: it should outlive this thread, whose disks may still be at work on it; absent: the thread's own. */
  readonly poolMemory?: BufferMemory;
  /** Tests only: order points that the stores leave out. */
  readonly omit?: ReadonlySet<OrderPoint>;
  /** Tests only: points of the order of page moves that are left out. */
  readonly omitInMoves?: ReadonlySet<MoveOrderPoint>;
}

export interface Assembled {
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
  readonly heat: HeatBalance;
  readonly drains: Drains;
  readonly drainProgress: DrainProgress;
  readonly memberAdmin: MemberAdmin;
  readonly units: Units;
  /** Makes everything here know the members there are now. */
  readonly fellowsChanged: () => void;
  /** Null: sessions move without their connections. */
  readonly moves: SessionMoves | null;
  /** Before the first login. */
  readonly claimPortals: () => Promise<void>;
  readonly balancing: Balancing;
  readonly balanceRecords: BalanceRecords;
  /** Null: the group has no address, or this member takes no part in it. */
  readonly groupAddress: GroupAddress | null;
}

/** Joins the group, opens the disks, and puts the parts together; nothing listens yet. */
export async function assemble(
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
  const heatMeter = new HeatMeter({ clock, router, dataPlane });
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
    ...(parts.poolMemory === undefined ? {} : { memory: parts.poolMemory }),
    member,
    log,
    iqnPrefix: group.iqnPrefix,
    revision: revisionLevel,
    portals: portalsListening,
    groupPortal: config.group.portal,
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
  const node: TargetNode = new TargetNode({
    clock,
    random,
    log,
    pool: parts.pool ?? new BufferPool(bufferBytes, ownBuffersBytes(bufferBytes), parts.poolMemory),
    directory: volumes,
    relativeTargetPort: member.relativeTargetPort,
    ...(dataPlane === null ? {} : { place: (target) => dataPlane.place(target) }),
    ...(parts.flows === undefined || parts.flows === null
      ? {}
      : { attach: (...s) => parts.flows!.attach(...s) }),
    redirect: (login, decided) => balancing.redirect(login, decided),
    whenFree: (login, then) => moves === null ? then() : moves.whenFree(login, then),
  });
  dataPlane?.setNode(node);
  const portals = new Portals(
    network,
    clock,
    log,
    (address, stream) => node.accept(portalOf(address), stream),
  );
  const storeAt = (placement: number) =>
    disks.find(({ record }) => record.placement === placement)?.store ?? null;
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
    shortCuts: shortCutsOf(config, parts),
    leaving: (image: number, page: number): boolean => mover.moves(image, page),
    storeOf: (placement) => storeAt(placement),
    behind: (image) => volumes.behind(image),
    homeReturned: () => volumes.hearLostWrites(),
  });
  forwarding.messages.listen(MessageKind.unitChange, units.hear);
  const balanceRecords = new BalanceRecords({ metadata, clock, log }, config.group.loginPolicy);
  const moves: SessionMoves | null = parts.flows === undefined || parts.flows === null
    ? null
    : new SessionMoves({
      clock,
      log,
      flows: parts.flows,
      messenger: forwarding.messenger,
      messages: forwarding.messages,
      member,
      members,
      node,
      draining: () => drains.has(member.name),
      forRestart: () => drains.restarts(member.name),
      handedOverFile: parts.handedOverFile ?? null,
      logoutSeconds: config.balance.logoutSeconds,
    });
  const drains = new Drains({ metadata, clock, log }, () => decider.soon());
  const balancing = new Balancing({
    moves,
    drains,
    clock,
    log,
    machine: parts.machine ?? unknownMachine,
    member,
    members,
    portals: config.member.portals,
    groupPortal: config.group.portal,
    settings: config.balance,
    records: balanceRecords,
    isProxy: (initiator) => isProxyName(group.iqnPrefix, initiator),
    isDraining: (name) => drains.has(name),
    node,
    volumes,
    table: (image) => router.table(image),
    forwarding,
    heat: heatMeter,
  });
  const fellows = () => members.fellows();
  const draining = (name: string) => drains.losesPages(name);
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
    heat: heatMeter,
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
    ...(parts.poolMemory === undefined ? {} : { memory: parts.poolMemory }),
    ...(parts.omitInMoves === undefined ? {} : { omit: parts.omitInMoves }),
  });
  const deletions = new Deletions({ metadata, member, disks, admin, quiet });
  const volumeStates = (): VolumeState[] =>
    volumes.served().flatMap(({ record: { name, image, members } }) => {
      const table = router.table(image);
      return table === null ? [] : [{ name, image, table, ...(members === undefined ? {} : { members }) }];
    });
  const hasSlot = (placement: number, image: number, page: number) =>
    storeAt(placement)?.hasPage(image, page) === true;
  const heat = new HeatBalance({
    clock,
    log,
    settings: config.balance,
    meter: heatMeter,
    picture: balancing.picture,
    forwarding,
    volumes: volumeStates,
    own: (placement) => {
      const store = storeAt(placement);
      return store === null ? null : { freeSlots: store.usage().availableSlots };
    },
    hasSlot,
  });
  const decider: PageDecider = new PageDecider({
    clock,
    log,
    member,
    disks,
    router,
    volumes,
    volumeStates,
    hasSlot,
    usage,
    drains,
    mover,
    heat,
  });
  const fellowsChanged = () => {
    forwarding.fellowsChanged();
    arrivals.fellowsChanged();
    moves?.fellowsChanged();
    balancing.fellowsChanged();
    if (fellows().length > 0) drains.begin();
    void units.tidy();
    void volumes.fellowsChanged();
    multipath.planChanged();
    void usage.tell();
  };
  const { portal: groupPortal } = config.group;
  const floating = parts.floatingAddress ?? null;
  const groupAddress = groupPortal === null || floating === null ? null : new GroupAddress({
    metadata,
    clock,
    bootClock: parts.bootClock ?? { era: parts.bootId, nowMs: () => clock.nowMs() },
    log,
    address: groupPortal,
    floating,
    member: member.name,
    run: members.run,
    serves: members.held,
    draining: () => drains.has(member.name),
    listen: () => network.listen(groupPortal, (stream) => node.accept(portalOf(groupPortal), stream)),
    dropConnections: (reason) => node.dropPortal(groupPortal, reason),
  });
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
    heat,
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
    moves,
    claimPortals: async () => {
      const file = parts.handedOverFile;
      if (moves !== null) await moves.resume();
      else if (file === undefined || await takeHandedOver(file, log) === null) return; // it never passed any on
      await claimPortals({ clock, log, members, messenger: forwarding.messenger });
    },
    balancing,
    balanceRecords,
    groupAddress,
    fellowsChanged,
  };
}

function shortCutsOf(config: MemberConfig, { flows, clock, machine }: TargetParts): ShortCutParts | null {
  if (flows === undefined || flows === null) return null;
  const { portals, shortCutBytes } = config.member;
  const egress = new Egress(machine ?? unknownMachine, clock, portals.map(({ hostname }) => hostname));
  return { flows, worth: (bytes) => worthShortCut(bytes, shortCutBytes, egress.freeBytesPerS()) };
}

/** Other threads must not transfer to the image while `run` is at it. */
function excludeThreads(volumes: Volumes, image: number, run: (ended: () => void) => void): void {
  const gate = volumes.ofImage(image)?.gated?.gate;
  if (gate === undefined) return run(() => {});
  const hold: Hold = new Hold(Exclusion.transfers, () => run(() => gate.release(hold)));
  gate.take(hold);
}
