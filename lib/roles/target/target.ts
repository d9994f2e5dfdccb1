// The role "target": one member of a group, composed of metadata, stores, router, device servers, sessions and portals.
// Everything of the world is handed in, so that the simulator can start the same member.

import { limits } from "../../base/limits.ts";
import type { SocketAddress } from "../../base/network.ts";
import type { MemberConfig } from "../../config/config.ts";
import { reconcileDisks, reconcileVolumes, type VolumeWish, volumeWish } from "../../config/reconcile.ts";
import { chapSecretOfFile } from "../../config/secret.ts";
import { listDisks } from "../../meta/group.ts";
import { Followed } from "../../meta/followed.ts";
import { keys } from "../../meta/records.ts";
import { ControlError, type MemberControl, type VolumeCreation } from "../../mgmt/control.ts";
import type { IncomingPages } from "../../forward/mod.ts";
import { Router } from "../../route/router.ts";
import type { Balancing } from "./balancing.ts";
import { TargetControl } from "./control.ts";
import { waitingFor } from "./deletion.ts";
import type { ServedDisk } from "./disks.ts";
import { Mover } from "./mover.ts";
import { noteLostWrites } from "./lost_writes.ts";
import { Portals } from "./portals.ts";
import { Volumes } from "./volumes.ts";
import { assemble, type Assembled, type TargetParts } from "./assembly.ts";
import { closeDisks } from "./disk_watch.ts";

/** A volume of the configuration that could not be made, since the metadata was away, is tried again after this time. */
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
  /** Keeps the volumes in step with the metadata, whoever changes it. */
  readonly #volumes: Followed;
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

  get balancing(): Balancing {
    return this.#state.balancing;
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
    const nameOf = (key: string) => key.slice(keys.volumePrefix.length);
    this.#volumes = new Followed({
      ...parts,
      prefix: keys.volumePrefix,
      read: async (entries) => {
        const names = new Set(entries.map(({ key }) => nameOf(key)));
        for (const { record } of state.volumes.served()) names.add(record.name);
        for (const name of names) await state.volumes.refresh(name);
      },
      seen: (events) => {
        for (const event of events) {
          void state.volumes.refresh(nameOf(event.kind === "put" ? event.entry.key : event.key));
        }
      },
    });
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
        ...state.balancing.notices(),
        ...state.groupAddress?.notices() ?? [],
        ...this.#notices,
      ],
      ready: () => this.#begun && this.#stopped === null && anyListens(state.portals),
    });
  }

  async #begin(): Promise<void> {
    const { metadata, log } = this.#parts;
    const { admin, disks, portals } = this.#state;
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
    await this.#volumes.follow();
    await this.#state.units.follow();
    await this.#state.claimPortals();
    for (const address of this.#config.member.portals) await portals.open(address);
    // Not before: a start that fails is to leave all as it is to the next one.
    if (await this.#state.drains.restarted(this.#config.member.name)) {
      log.info("the drain for this restart is over");
    }
    this.#begun = true;
    this.#state.forwarding.ready();
    this.#state.decider.start();
    this.#state.fellowsChanged();
    this.#state.members.up();
    this.#state.balancing.start();
    this.#state.groupAddress?.start();
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
    this.#volumes.close();
    const handedOver = this.#state.groupAddress?.close();
    this.#state.balancing.close();
    this.#state.balanceRecords.close();
    const kept = await this.#state.moves?.handOver() ?? 0;
    if (kept > 0) {
      progress(`connections of other members' sessions that are kept for the next start: ${kept}`);
    }
    members.draining();
    this.#state.decider.close();
    this.#state.drains.close();
    mover.close();
    progress("no more logins; finishing commands in flight");
    await Promise.all([handedOver, portals.close()]);
    // By then nobody is there any more to be answered, and another member may not end what it has for as long as it likes.
    const late = this.#parts.clock.after(limits.stopCloseTimeMs, () => {
      forwarding.forwarder.close();
      units.close();
    });
    await Promise.all([new Promise<void>((done) => node.stop(done)), this.#state.moves?.sentAway()]);
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
    return chapSecretOfFile(path, await this.#parts.readSecretFile(path));
  }

  #notice(sentence: string): void {
    this.#notices = [...this.#notices, sentence];
    this.#parts.log.warn(sentence);
  }

  /** The lease was away for a while: everything is read again. */
  async catchUp(): Promise<void> {
    await this.#state.units.catchUp();
    if (this.#begun && this.#stopped === null) await this.#volumes.follow(); // else the start reads it all
  }
}

function anyListens(portals: Portals): boolean {
  return portals.states().some(({ state }) => state === "listening");
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
  changed("[[disk]] list", (c) => c.disks.map(({ line: _, ...disk }) => disk));
  const gone = open.filter((a) =>
    !after.member.portals.some((b) => a.hostname === b.hostname && a.port === b.port)
  );
  if (gone.length > 0) {
    out.push("A portal was taken out of the configuration: it is served until the member is restarted.");
  }
  return out;
}
