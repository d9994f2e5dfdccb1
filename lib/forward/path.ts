// One session of an initiator-proxy with a member: made on demand, made again when it is lost, over another portal of the
// same member when its own does not answer. A login with the same ISID ends what the session before had in flight
// (RFC 7143 §6.3.5), whichever portal it comes through: all portals of a member are one target portal group.

import { assert } from "../base/assert.ts";
import type { Clock, Timer } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import {
  formatSocketAddress,
  type Network,
  type SocketAddress,
  type StreamHandler,
} from "../base/network.ts";
import type { RandomSource } from "../base/random.ts";
import { InitiatorCommand, type InitiatorSession, type SessionEnd } from "../session/initiator/mod.ts";
import { AsyncMessage } from "../wire/iscsi/bhs.ts";
import { AsyncEvent, LoginStatus, LogoutReason, TaskManagementFunctionCode } from "../wire/iscsi/status.ts";
import { encodeSessionObject, multipathAsyncCode, MultipathOut } from "../wire/scsi/multipath.ts";
import { proxyIsid, proxyName, proxyProofs } from "./identity.ts";
import { openSession } from "./open_session.ts";
import type { VolumeCommand } from "./volume_command.ts";

/** What all paths of a volume have in common. */
export interface PathParts {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly network: Network;
  readonly log: Log;
  readonly iqnPrefix: string;
  /** The group's. */
  readonly secret: string;
  readonly targetName: string;
  /** 16 bytes. */
  readonly host: Uint8Array;
  readonly hostName: string;
  readonly disk: Uint8Array;
  /** A path that says nothing for so long is dead, milliseconds. */
  readonly silenceMs: number;
}

export interface PathOwner {
  /** A session has been made: whatever an earlier one of the path had in flight has ended. */
  loggedIn(path: Path): void;
  /** Commands may be sent. */
  opened(path: Path): void;
  /** Commands may not be sent any more, for now. What was with it is told by `ended`. */
  left(path: Path): void;
  ended(path: Path, command: VolumeCommand): void;
  /** A vendor notice: its kind. */
  told(path: Path, kind: number): void;
}

/** Where a path leads. */
export interface PathPlace {
  readonly member: string;
  readonly initiatorPort: number;
  /** Portals of the member, the plan's first. */
  readonly addresses: readonly SocketAddress[];
  /** Number of the member's start; "": not known. */
  readonly run: string;
}

export class Path {
  place: PathPlace;
  /** Sessions that it has had. */
  logins = 0;
  /** The member's start that the last session was made with. */
  run = "";
  /** Commands sent and not ended. */
  inFlight = 0;
  /** Commands given to it so far. */
  commands = 0;
  /** Why it is away; "": it is not, or nobody has tried. */
  reason = "";
  /** leaving: the member has asked for the session's end. */
  #state: "idle" | "connecting" | "open" | "leaving" | "pausing" | "closed" = "idle";
  readonly #parts: PathParts;
  readonly #owner: PathOwner;
  #session: InitiatorSession | null = null;
  #address: SocketAddress | null = null;
  /** Which address is next, and how many have been tried since a session was there. */
  #next = 0;
  #tried = 0;
  #retry: Timer | null = null;
  #retryMs: number = limits.forwardRetryMsMin;
  /** Until it looks whether its own portal is there again. */
  #return: Timer | null = null;

  constructor(place: PathPlace, parts: PathParts, owner: PathOwner) {
    this.place = place;
    this.#parts = parts;
    this.#owner = owner;
  }

  get open(): boolean {
    return this.#state === "open" && this.#session?.state === "fullFeature";
  }

  get closed(): boolean {
    return this.#state === "closed";
  }

  /** Of the portal that it goes to now, or tried last. */
  get portal(): string {
    return this.#address === null ? "" : formatSocketAddress(this.#address);
  }

  start(): void {
    if (this.#state === "idle") this.#connect();
  }

  /** The path must be open. */
  submit(command: VolumeCommand): void {
    assert(this.open, "a command was given to a path that is not open");
    command.state = "sent";
    command.path = this;
    command.login = this.logins;
    this.inFlight++;
    this.commands++;
    this.#session!.submit(command.command);
  }

  /** The session has ended the command, in whatever way. */
  done(command: VolumeCommand): void {
    this.inFlight--;
    this.#owner.ended(this, command);
    this.#leaveIfDone();
  }

  abort({ command }: VolumeCommand): void {
    const { lunHigh, lunLow } = command;
    this.#session?.manage(TaskManagementFunctionCode.abortTask.code, lunHigh, lunLow, command, () => {});
  }

  /** The answer's data to a command of the control kind; rejects with why not. */
  async ask(cdb: Uint8Array, room: number, dataOut: Uint8Array | null = null): Promise<Uint8Array> {
    const { status, sense, data } = await this.pass(cdb, room, dataOut);
    if (status !== 0) throw new Error(`status ${status}, sense ${sense.toHex()}`);
    return data;
  }

  /** A command that is carried out as it is; rejects when there is no answer. */
  pass(
    cdb: Uint8Array,
    room: number,
    dataOut: Uint8Array | null,
  ): Promise<{ readonly status: number; readonly sense: Uint8Array; readonly data: Uint8Array }> {
    const command = new InitiatorCommand();
    command.cdb.set(cdb);
    command.dataOut = dataOut;
    command.dataOutLength = dataOut?.length ?? 0;
    command.dataIn = room === 0 ? null : new Uint8Array(room);
    command.dataInLength = room;
    return new Promise((resolve, reject) => {
      command.done = () => {
        if (command.outcome !== "completed") return reject(new Error(command.reason));
        if (command.response !== 0) return reject(new Error(`iSCSI response ${command.response}`));
        const { status, sense } = command;
        resolve({ status, sense, data: (command.dataIn ?? nothing).slice(0, command.dataInReceived) });
      };
      if (this.#session === null) reject(new Error("the session is over"));
      else this.#session.submit(command);
    });
  }

  /** Ends it for good: in order when nothing is in flight. */
  close(reason: string): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#retry?.cancel();
    this.#return?.cancel();
    const session = this.#session;
    if (session === null) return;
    if (this.inFlight > 0 || session.state !== "fullFeature") return session.abort(reason);
    session.logout(LogoutReason.closeSession.code, () => {});
  }

  #connect(): void {
    const { addresses, run } = this.place;
    this.#retry = null;
    this.#state = "connecting";
    if (addresses.length === 0) return this.#pause("it is down");
    const address = this.#address = addresses[this.#next++ % addresses.length]!;
    this.#tried++;
    const connectMs = Math.min(limits.forwardConnectMsMax, 2 * this.#parts.silenceMs);
    openSession(this.#parts, address, connectMs, this.#options(), {
      take: (session) => {
        if (this.#state !== "connecting") return "the path is closed";
        this.#session = session;
        return null;
      },
      failed: (reason) => {
        if (this.#state === "connecting") this.#pause(reason);
      },
      loggedIn: (session) => this.#loggedIn(session, run),
      closed: (session, end) => this.#ended(session, end),
      asyncMessage: (session, event, { header }) => this.#told(session, event, header),
    });
  }

  #options() {
    const { iqnPrefix, secret, targetName, host, silenceMs } = this.#parts;
    const initiatorName = proxyName(iqnPrefix, host.toHex());
    return {
      initiatorName,
      targetName,
      isid: proxyIsid(this.place.initiatorPort),
      ...proxyProofs(secret, initiatorName, targetName),
      wishes: { headerDigest: ["None"], dataDigest: ["None"] },
      loginTimeoutMs: Math.max(1_000, 2 * silenceMs),
      nopIntervalMs: Math.floor(silenceMs * 0.4),
      nopTimeoutMs: Math.ceil(silenceMs * 0.6),
    };
  }

  #loggedIn(session: InitiatorSession, run: string): void {
    if (session !== this.#session) return;
    this.logins++;
    this.run = run;
    this.#owner.loggedIn(this);
    const { disk, host, hostName } = this.#parts;
    const { initiatorPort } = this.place;
    const object = encodeSessionObject({ disk, host, hostName, initiatorPort });
    const cdb = new Uint8Array(16);
    const view = new DataView(cdb.buffer);
    const f = MultipathOut.fields;
    view.setUint8(0, MultipathOut.opcode);
    f.serviceAction.set(view, 0, MultipathOut.serviceAction!);
    f.version.set(view, 0, 1);
    f.function.set(view, 0, 1);
    f.parameterListLength.set(view, 0, object.length);
    this.ask(cdb, 0, object).then(
      () => this.#opened(session),
      (error: Error) => session.abort(`the member does not take the session object: ${error.message}`),
    );
  }

  #opened(session: InitiatorSession): void {
    if (session !== this.#session || this.#state !== "connecting" || session.state !== "fullFeature") return;
    this.#state = "open";
    this.#retryMs = limits.forwardRetryMsMin;
    this.#next = 0; // the plan's own
    this.#tried = 0;
    if (this.reason !== "") {
      const target = this.#parts.targetName;
      this.#parts.log.info("a path is back", { target, member: this.place.member, portal: this.portal });
    }
    this.reason = "";
    this.#owner.opened(this);
    this.#returnLater();
  }

  /** The plan has a session at each portal: whoever had to go to another one goes back, when it answers again. */
  #returnLater(): void {
    this.#return?.cancel();
    const session = this.#session;
    const [own] = this.place.addresses;
    if (own === undefined || this.portal === formatSocketAddress(own)) return;
    const stays = () => session === this.#session && this.#state === "open";
    this.#return = this.#parts.clock.after(limits.pathReturnMs, () => {
      if (!stays()) return;
      const probe = this.#parts.network.connect(own, limits.forwardConnectMsMax, (stream) => {
        stream.abort();
        return nobody;
      });
      probe.then(() => {
        if (stays()) this.#leave();
      }, () => {
        if (stays()) this.#returnLater();
      });
    });
  }

  #leave(): void {
    this.#state = "leaving";
    this.#owner.left(this);
    this.#leaveIfDone();
  }

  #told(session: InitiatorSession, event: number, header: DataView): void {
    if (session !== this.#session) return;
    if (event === AsyncEvent.vendor.code && AsyncMessage.asyncVCode.get(header, 0) === multipathAsyncCode) {
      this.#owner.told(this, AsyncMessage.parameter1.get(header, 0));
    } else if (event === AsyncEvent.logoutRequested.code && this.#state === "open") {
      this.#leave();
    }
  }

  #leaveIfDone(): void {
    if (this.#state !== "leaving" || this.inFlight > 0) return;
    this.#session?.logout(LogoutReason.closeSession.code, () => {});
  }

  #ended(session: InitiatorSession, end: SessionEnd): void {
    if (session !== this.#session) return;
    this.#session = null;
    if (this.#state === "closed") return;
    const reason = end.kind === "lost"
      ? end.reason
      : end.kind === "loginFailed"
      ? end.reason + (refusalWords.get(end.status ?? 0) ?? "")
      : `the session was ${end.kind}`;
    const silent = end.kind === "lost" && end.silent === true;
    if (silent) {
      this.#next = this.place.addresses.findIndex((a) => formatSocketAddress(a) === this.portal) + 1;
    }
    this.#pause(reason, silent);
  }

  /**
   * Tries again in a while: at once through another portal, if there is one that has not been tried. To call a portal that has
   * fallen silent would be to wait for it: the others come first.
   */
  #pause(reason: string, silent = false): void {
    const { member, addresses } = this.place;
    if (this.reason === "") {
      const target = this.#parts.targetName;
      this.#parts.log.warn("a path is away", { target, member, portal: this.portal, reason });
    }
    this.reason = reason;
    this.#state = "pausing";
    const soon = silent || (this.#tried > 0 && this.#tried < addresses.length);
    this.#retry = this.#parts.clock.after(soon ? 1 : this.#retryMs, () => this.#connect());
    if (!soon) this.#retryMs = Math.min(this.#retryMs * 2, limits.forwardRetryMsMax);
    this.#owner.left(this);
  }
}

const nothing = new Uint8Array(0);
const nobody: StreamHandler = { received: () => {}, drained: () => {}, closed: () => {} };

/** What a refused login means here, behind what the member has said. */
const refusalWords: ReadonlyMap<number, string> = new Map([
  [
    LoginStatus.authenticationFailure!.code,
    ": the group's secret here is another than the members'. Copy secret_file from a member",
  ],
  [LoginStatus.notFound!.code, ": the member serves no volume of this name"],
]);
