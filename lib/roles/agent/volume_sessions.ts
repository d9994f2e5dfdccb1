// The kernel's sessions of one volume on this host: those that the plan asks for are made, those that show another disk are made
// anew, and those that nobody wants end when no map uses them.

import type { Clock } from "../../base/clock.ts";
import { parseAddress } from "../../config/address.ts";
import type { MemberProofs } from "../../forward/mod.ts";
import { naaIdentifier } from "../../wire/scsi/inquiry.ts";
import { HostError } from "./device_mapper.ts";
import type { KernelSession, OpenIscsi } from "./open_iscsi.ts";
import type { WantedDevice } from "./wanted_device.ts";

export interface VolumeSessionsParts {
  readonly clock: Clock;
  readonly iscsi: OpenIscsi;
  /** The volume's iSCSI name. */
  readonly target: string;
  /** What the sessions log in with. */
  readonly proofs: MemberProofs;
}

export interface VolumeSessionsOwner {
  /** A trouble for people. */
  tell(message: string): void;
  /** A login has ended, in whatever way. */
  changed(): void;
}

const loginRetryMs = 5_000;

export class VolumeSessions {
  readonly #parts: VolumeSessionsParts;
  readonly #owner: VolumeSessionsOwner;
  /** By portal: its member, as long as the process lives. */
  readonly #members = new Map<string, string>();
  readonly #logins = new Map<string, Promise<void>>();
  /** By portal: when to try again. */
  readonly #retryAt = new Map<string, number>();
  /** By portal: why the last login failed. */
  readonly #failures = new Map<string, string>();
  #closed = false;

  constructor(parts: VolumeSessionsParts, owner: VolumeSessionsOwner) {
    this.#parts = parts;
    this.#owner = owner;
  }

  /** "": not known any more. */
  memberOf({ portal }: KernelSession): string {
    return this.#members.get(portal) ?? "";
  }

  /** Logins that failed and are tried again: of portals that are wanted. */
  failures(wanted: WantedDevice): { portal: string; member: string; reason: string }[] {
    return wanted.members.flatMap(({ name: member, portals }) =>
      portals.flatMap((portal) => {
        const reason = this.#failures.get(portal);
        return reason === undefined ? [] : [{ portal, member, reason }];
      })
    );
  }

  all(): Promise<KernelSession[]> {
    return this.#parts.iscsi.sessions(this.#parts.target);
  }

  /** Those that show the volume's disk and may stay; the others that are wanted are being made. `patient`: waits for these. */
  async usable(wanted: WantedDevice, patient: boolean): Promise<KernelSession[]> {
    for (const { name, portals } of wanted.members) for (const p of portals) this.#members.set(p, name);
    let found = await this.all();
    for (const portal of wanted.members.flatMap(({ portals }) => portals)) {
      if (!found.some((session) => session.portal === portal && session.disk !== null)) this.#login(portal);
    }
    if (patient && this.#logins.size > 0) {
      await Promise.all(this.#logins.values());
      found = await this.all();
    }
    const usable: KernelSession[] = [];
    for (const session of found) {
      if (session.disk !== null) this.#failures.delete(session.portal);
      if (!this.#stays(wanted, session) || session.disk === null || session.disk.sectors === 0) continue;
      if (this.#isTheVolume(wanted, session)) usable.push(session);
      else await this.#leaveStranger(session);
    }
    return usable;
  }

  /** Ends sessions that nobody wants and no map uses any more. */
  async leaveOthers(wanted: WantedDevice): Promise<void> {
    const { iscsi, target } = this.#parts;
    for (const session of await this.all()) {
      if (this.#stays(wanted, session) || (session.disk?.holders.length ?? 0) > 0) continue;
      if (!this.#logins.has(session.portal)) await iscsi.logout(target, session.portal);
    }
  }

  async leaveAll(): Promise<void> {
    const { iscsi, target } = this.#parts;
    for (const { portal } of await this.all()) await iscsi.logout(target, portal);
  }

  /** No logins from now on; resolves when none is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#logins.values());
  }

  #login(portal: string): void {
    const { clock, iscsi, target, proofs } = this.#parts;
    const parsed = parseAddress(portal);
    if (parsed.kind !== "address" || this.#logins.has(portal) || this.#closed) return;
    if ((this.#retryAt.get(portal) ?? -Infinity) > clock.nowMs()) return;
    const login = iscsi.login(target, parsed.address, proofs).then(
      () => {
        this.#retryAt.delete(portal);
        this.#failures.delete(portal);
      },
      (error: Error) => {
        if (!(error instanceof HostError)) throw error; // our own mistake
        this.#retryAt.set(portal, clock.nowMs() + loginRetryMs);
        this.#failures.set(portal, error.message);
        this.#owner.tell(error.message);
      },
    ).finally(() => {
      this.#logins.delete(portal);
      this.#owner.changed();
    });
    this.#logins.set(portal, login);
  }

  /** Is it planned, or of a member that is away and may come back? */
  #stays(wanted: WantedDevice, session: KernelSession): boolean {
    const member = wanted.members.find(({ name }) => name === this.memberOf(session));
    if (member === undefined) return false;
    return member.portals.includes(session.portal) || (!member.up && member.pages > 0);
  }

  #isTheVolume({ identifier }: WantedDevice, { portal, disk }: KernelSession): boolean {
    if (disk === null) return false;
    const names = [identifier.toHex(), `naa.${naaIdentifier(identifier).toHex()}`];
    if (names.some((name) => disk.wwid.includes(name))) return true;
    this.#owner.tell(
      `Cannot use disk ${disk.name} at ${portal}: its identifier is "${disk.wwid}", and the volume's is ` +
        `"${names[0]}". Is it another volume of the same name?`,
    );
    return false;
  }

  /** The kernel keeps what it once read of a disk, whatever the target shows since: the next login reads it again. */
  async #leaveStranger({ portal, disk }: KernelSession): Promise<void> {
    if (disk!.holders.length > 0 || this.#logins.has(portal)) return;
    this.#retryAt.set(portal, this.#parts.clock.nowMs() + loginRetryMs);
    await this.#parts.iscsi.logout(this.#parts.target, portal);
  }
}
