// One volume of an initiator-proxy: keeps the paths that the plan asks for, and serves the volume with the same device server
// as a member does.

import type { SocketAddress } from "../../base/network.ts";
import { parseAddress } from "../../config/address.ts";
import { BlockDeviceServer } from "../../device/block_device_server.ts";
import type { LogicalUnitSettings } from "../../device/logical_unit.ts";
import { hostOfRun, proxyRun } from "../../device/proxied_names.ts";
import { type Path, PathForwarder, type PathPlace } from "../../forward/mod.ts";
import type { PathParts } from "../../forward/path.ts";
import type { ProxiedVolume } from "../../mgmt/control.ts";
import type { MultipathPlan } from "../../wire/scsi/multipath_reply.ts";
import { MultipathNotice } from "../../wire/scsi/multipath.ts";
import { ProxiedUnitStore } from "./unit_store.ts";
import { VolumeLearner } from "./volume_learner.ts";

export interface ProxyVolumeParts extends PathParts {
  readonly name: string;
  readonly groupPortals: readonly SocketAddress[];
  /** False: commands go over any path, as a host's would that knows no routes. */
  readonly routeTable: boolean;
  readonly targetPortalGroupTag: number;
  readonly revision: string;
  /** Ends the sessions of local initiators. */
  readonly dropSessions: (reason: string) => void;
}

/** The initiator port of the session that is made before there is a plan. */
const seedPort = 255;

export class ProxyVolume {
  /** Null: what it is has not been learned yet. */
  server: BlockDeviceServer | null = null;
  readonly #parts: ProxyVolumeParts;
  readonly #learner: VolumeLearner;
  readonly #forwarder: PathForwarder;
  #reason = "no member has been reached yet";
  #closed = false;
  /** This process, in the unit's record. */
  readonly #run: string;

  constructor(parts: ProxyVolumeParts) {
    this.#parts = parts;
    const start = new Uint8Array(8);
    parts.random.fill(start);
    this.#run = proxyRun(parts.host.toHex(), start.toHex());
    this.#learner = new VolumeLearner({
      ...parts,
      anyOpen: () => this.#forwarder.anyOpen(),
      failed: (reason) => this.#reason = reason,
      nobody: () => this.#addSeed(),
      learned: () => this.#learned(),
      replaced: () => this.#gone(),
    });
    this.#forwarder = new PathForwarder({
      ...parts,
      pageBytes: () => this.#learner.copy.plan!.pageBytes,
      homeOf: (page) => parts.routeTable ? this.#learner.copy.homeOf(page) : null,
      mayLive: (member, run) => this.#mayLive(member, run),
      opened: () => this.#learner.ask(),
      left: (path) => this.#left(path),
      told: (_path, kind) => kind === MultipathNotice.unit ? this.#followUnit() : this.#learner.ask(),
      attention: (code) => this.#attention(code),
    });
  }

  start(): void {
    this.#seed();
    this.#learner.start();
  }

  get name(): string {
    return this.#parts.name;
  }

  async close(reason: string): Promise<void> {
    this.#closed = true;
    this.#learner.close();
    const { server } = this;
    this.server = null;
    if (server !== null) {
      await new Promise<void>((done) => server.close(reason, done));
      await new Promise<void>((done) => server.replica.follow(Infinity, () => done())); // behind what its nexuses release
    }
    this.#forwarder.close();
  }

  report(): ProxiedVolume {
    const { server } = this;
    return {
      name: this.#parts.name,
      state: server !== null ? "online" : "waiting",
      ...(server !== null && this.#forwarder.anyOpen() !== null ? {} : { reason: this.#reason }),
      epoch: this.#learner.copy.epoch,
      sizeBytes: server?.settings.sizeBytes ?? 0,
      pages: this.#learner.copy.pagesByMember(),
      held: this.#forwarder.held,
      paths: this.#forwarder.paths.map((path) => ({
        member: path.place.member,
        portal: path.portal,
        initiatorPort: path.place.initiatorPort,
        state: path.open ? "open" : "away",
        ...(path.open || path.reason === "" ? {} : { reason: path.reason }),
        inFlight: path.inFlight,
        commands: path.commands,
      })),
    };
  }

  get identifier(): Uint8Array | null {
    return this.#learner.copy.volume?.identifier ?? null;
  }

  get plan(): MultipathPlan | null {
    return this.#learner.copy.plan;
  }

  /** A session with whoever of the group answers. */
  #seed(): void {
    const addresses = this.#parts.groupPortals;
    this.#forwarder.setPlaces([{ member: "", initiatorPort: seedPort, addresses, run: "" }]);
  }

  #left(path: Path): void {
    if (path.reason !== "") this.#reason = path.reason;
    this.#learner.ask(); // others may know what became of that member
  }

  /** All planned paths are away: the plan may be out of date altogether. */
  #addSeed(): void {
    const { plan } = this.#learner.copy;
    if (plan === null) return;
    const places = this.#forwarder.paths.map(({ place }) => place);
    if (places.some((place) => place.initiatorPort === seedPort)) return;
    const addresses = this.#parts.groupPortals;
    this.#forwarder.setPlaces([...places, { member: "", initiatorPort: seedPort, addresses, run: "" }]);
  }

  async #learned(): Promise<void> {
    await this.#serve();
    this.#usePlan();
  }

  /** Whoever uses the old volume must not go on with the new one. */
  async #gone(): Promise<void> {
    const { server } = this;
    this.server = null;
    this.#parts.dropSessions("the volume was replaced");
    if (server !== null) await new Promise<void>((done) => server.close("the volume was replaced", done));
    this.#seed();
  }

  async #serve(): Promise<void> {
    const settings = this.#settings();
    if (settings === null) return;
    const { server } = this;
    if (server !== null) {
      if (JSON.stringify(describe(settings)) !== JSON.stringify(describe(server.settings))) {
        server.update(settings);
      }
      return this.#followUnit(); // a notice may have been lost with its session
    }
    const { name, log, host, targetPortalGroupTag } = this.#parts;
    const made = new BlockDeviceServer(settings, {
      blocks: this.#forwarder,
      store: new ProxiedUnitStore({
        log,
        volume: name,
        image: settings.image,
        host: host.toHex(),
        run: this.#run,
        relativeTargetPort: targetPortalGroupTag,
        anyOpen: () => this.#forwarder.anyOpen(),
      }),
      mayDecide: () => this.#forwarder.anyOpen() !== null,
      asksFirst: true,
    });
    await made.replica.start();
    if (this.#closed) return;
    made.replica.reservations.tidy((run) => run === this.#run || hostOfRun(run) !== host.toHex()); // what this host had before it was killed
    this.server = made;
    log.info("volume is served", {
      volume: name,
      target: settings.targetName,
      sizeBytes: settings.sizeBytes,
    });
  }

  /** Null: more pages are planned than the table has. */
  #settings(): LogicalUnitSettings | null {
    const { plan, volume, pages } = this.#learner.copy;
    if (plan === null || volume === null || pages * plan.pageBytes < plan.sizeBytes) return null;
    const { targetName, name, revision, targetPortalGroupTag: tag } = this.#parts;
    return {
      targetName,
      volumeName: name,
      identifier: volume.identifier,
      image: volume.image,
      sizeBytes: plan.sizeBytes,
      blockBytes: plan.blockBytes,
      pageBytes: plan.pageBytes,
      writeCache: plan.writeCache,
      writeProtected: plan.writeProtected,
      revision,
      targetPortGroups: [{ tag, state: "activeOptimized", relativeTargetPorts: [tag] }],
    };
  }

  #usePlan(): void {
    const { plan } = this.#learner.copy;
    if (plan === null) return;
    const places = plan.paths.map((path): PathPlace => {
      const { name, run, portals } = plan.members[path.member]!;
      const own = portals.slice(path.portal).concat(portals.slice(0, path.portal));
      const addresses = own.flatMap((text) => {
        const parsed = parseAddress(text);
        return parsed.kind === "address" ? [parsed.address] : [];
      });
      return { member: name, initiatorPort: path.initiatorPort, addresses, run };
    });
    if (places.length === 0) return; // nobody is up: keep what there is
    const ready = this.#forwarder.paths.some((p) => p.open && p.place.initiatorPort !== seedPort);
    const seed = this.#forwarder.paths.find((p) => p.place.initiatorPort === seedPort);
    // The first session goes when a planned one is there to take its place.
    this.#forwarder.setPlaces(ready || seed === undefined ? places : [...places, seed.place]);
  }

  #mayLive(member: string, run: string): boolean {
    const known = this.#learner.copy.plan?.members.find(({ name }) => name === member);
    if (known === undefined || run === "") return true;
    return known.run === run;
  }

  /** Nobody waits for it: what cannot be read now is read with the next question. */
  #followUnit(): void {
    this.server?.replica.follow(Infinity, () => {});
  }

  #attention(code: number): void {
    if (code === 0x3807) this.server?.raise("softThreshold");
    if (code === 0x2a09 || code === 0x2a01 || code === 0x3f03) this.#learner.ask();
  }
}

function describe(settings: LogicalUnitSettings): unknown {
  return { ...settings, identifier: settings.identifier.toHex() };
}
