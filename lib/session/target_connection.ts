// One connection of the target, from its first byte to its last: login, full feature phase, the watch over silence, the
// end. RFC 7143 §8.1. What PDUs mean is decided in target_login.ts and full_feature.ts.

import type { Clock, Timer } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import {
  type DetachedStream,
  formatSocketAddress,
  type SocketAddress,
  type Stream,
  type StreamHandler,
} from "../base/network.ts";
import type { RandomSource } from "../base/random.ts";
import { AsyncMessage, LoginRequest, Opcode, reservedTag } from "../wire/iscsi/bhs.ts";
import { AsyncEvent, codeText, LoginStage, LoginStatus } from "../wire/iscsi/status.ts";
import type { MovedSession } from "../wire/scsi/session_move.ts";
import type { Applicant } from "./admission.ts";
import { FrameReader, type FrameSink } from "./framing.ts";
import { FullFeature } from "./full_feature.ts";
import type { Handover } from "./handover.ts";
import { Link } from "./link.ts";
import { type LoginAnswer, LoginResponses } from "./login_responses.ts";
import { Departing, type Exit, exitToMember, exitToThread, noBaggage } from "./departing.ts";
import { type Departure, parametersOf } from "./departure.ts";
import type { VendorNotice } from "./nexus.ts";
import type { NexusBaggage } from "./task.ts";
import { Output } from "./output.ts";
import type { OutputRings } from "./output_ring.ts";
import { SilenceWatch } from "./silence_watch.ts";
import type { TargetDirectory, TargetPortal, TargetRecord } from "./target_directory.ts";
import { TargetLogin } from "./target_login.ts";
import type { SessionConnection, TargetSession } from "./target_session.ts";

/** What a connection needs of its node. */
export interface ConnectionHost {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly directory: TargetDirectory;
  readonly log: Log;
  readonly rings: OutputRings;
  /** Finds or makes the session for a finished login. */
  admit(applicant: Applicant): void;
  /** The connection has left the login phase (in whatever way). */
  loginOver(connection: TargetConnection): void;
  connectionClosed(connection: TargetConnection, silent: boolean): void;
  coldReset(session: TargetSession): void;
}

type State = "login" | "admitting" | "full" | "closing" | "closed";

/** Time for the last bytes to leave before the connection is reset, milliseconds. */
const closeTimeMs = 2_000;

export class TargetConnection implements StreamHandler, FrameSink, SessionConnection {
  readonly portal: TargetPortal;
  readonly reader: FrameReader;
  session: TargetSession | null = null;
  readonly #host: ConnectionHost;
  readonly #stream: Stream;
  #login: TargetLogin;
  #state: State = "login";
  #output: Output | null = null;
  #link: Link | null = null;
  #fullFeature: FullFeature | null = null;
  /** Of a login or a close that may not take longer. */
  #timer: Timer;
  readonly #silence: SilenceWatch;
  #anyByte = false;
  #loginData: Uint8Array = nothing;
  /** Null before the first request, and in a connection whose login was elsewhere. */
  #responses: LoginResponses | null = null;
  /** On its way to another member or thread. */
  #departing: Pick<Departing<unknown>, "received"> | null = null;

  constructor(host: ConnectionHost, portal: TargetPortal, stream: Stream) {
    this.#host = host;
    this.portal = portal;
    this.#stream = stream;
    this.reader = new FrameReader(this);
    this.#login = new TargetLogin({ directory: host.directory, random: host.random, portal });
    this.#silence = new SilenceWatch(host.clock, (reason) => void this.#fail(reason));
    this.#timer = host.clock.after(limits.loginTimeMsMax, () => void this.#fail("the login took too long"));
  }

  /** Goes on with a connection that another thread has taken through login, up to its last response. */
  static resume(
    host: ConnectionHost,
    stream: Stream,
    handover: Handover,
    target: TargetRecord,
    session: TargetSession,
  ): TargetConnection {
    const connection = new TargetConnection(host, handover.portal, stream);
    const { portal, answer } = handover;
    connection.#login = TargetLogin.resume(
      { directory: host.directory, random: host.random, portal },
      handover,
      target,
    );
    connection.#anyByte = true;
    const output = connection.#output = new Output(stream, host.rings);
    connection.#responses = new LoginResponses(output, connection.#login, handover.statSn);
    connection.#state = "admitting";
    connection.#enterFullFeature(session, answer.initiatorTaskTag, {
      kind: "answer",
      stage: answer.stage,
      nextStage: answer.nextStage,
      continue: false,
      text: Uint8Array.fromHex(answer.text),
    });
    return connection;
  }

  get remote(): SocketAddress {
    return this.#stream.remote;
  }

  get link(): Link {
    return this.#link!;
  }

  // StreamHandler.

  received(buffer: Uint8Array, view: DataView, start: number, end: number): void {
    this.#silence.heard = true;
    if (!this.#anyByte) {
      this.#anyByte = true;
      // Garbage need not be waited for: the first byte tells.
      if ((buffer[start]! & 0x3f) !== Opcode.loginRequest) {
        this.#fail("the first PDU is no login request");
        return;
      }
    }
    if (this.#departing === null) this.reader.received(buffer, view, start, end);
    else this.#departing.received(buffer, view, start, end);
  }

  drained(): void {
    this.#link?.pump();
  }

  closed(reason: string): void {
    if (this.#state === "closed") return;
    const wasFull = this.#state === "full";
    this.#leave("closed");
    this.#output?.close();
    this.#timer.cancel();
    if (wasFull && this.session !== null) {
      this.#note("Connection closed by the initiator or the network", { reason });
    }
    this.#host.connectionClosed(this, !this.#anyByte);
  }

  // FrameSink.

  header(view: DataView, at: number, ahsBytes: number, dataBytes: number): boolean {
    if (this.#state === "full") return this.#fullFeature!.header(view, at, ahsBytes, dataBytes);
    if (this.#state === "admitting") return this.#fail("a PDU came before the login was answered");
    if (this.#state !== "login") return false;
    if ((view.getUint8(at) & 0x3f) !== Opcode.loginRequest) {
      return this.#fail("the first PDU is no login request");
    }
    if (ahsBytes > 0) return this.#fail("a login request has additional headers");
    this.#loginData = dataBytes === 0 ? nothing : new Uint8Array(dataBytes);
    this.reader.dataInto = this.#loginData;
    this.reader.dataIntoAt = 0;
    return true;
  }

  pdu(view: DataView, at: number, ahsBytes: number, dataBytes: number, digestRight: boolean): boolean {
    if (this.#state === "full") {
      return this.#fullFeature!.pdu(view, at, ahsBytes, dataBytes, digestRight) && this.#state === "full";
    }
    if (this.#state !== "login") return false;
    const data = this.#loginData;
    this.#loginData = nothing;
    this.#loginRequest(view, at, data);
    return this.#stillParsing();
  }

  broken(reason: "headerDigest" | "dataTooLong"): void {
    this.#fail(
      reason === "headerDigest" ? "a header digest was wrong" : "a data segment was longer than was agreed",
    );
  }

  #stillParsing(): boolean {
    return this.#state === "login" || this.#state === "admitting" || this.#state === "full";
  }

  // Login.

  #loginRequest(view: DataView, at: number, data: Uint8Array): void {
    if (this.#responses === null) {
      this.#output = new Output(this.#stream, this.#host.rings);
      this.#responses = new LoginResponses(this.#output, this.#login, LoginRequest.expStatSn.get(view, at));
    }
    const tag = LoginRequest.initiatorTaskTag.get(view, at);
    const step = this.#login.request(view, at, data);
    if (step.kind === "refuse") return this.#refuse(tag, step.status, step.reason);
    if (step.nextStage !== LoginStage.fullFeaturePhase) return void this.#answer(tag, step, null);
    this.#state = "admitting";
    this.#host.admit({
      login: this.#login,
      portal: this.portal,
      wanted: () => this.#state === "admitting",
      granted: (session) => this.#enterFullFeature(session, tag, step),
      refused: (status, reason) => this.#refuse(tag, status, reason),
      redirected: (address, reason) => this.#redirect(tag, step.stage, address, reason),
      handOver: () => this.#handOver(tag, step),
    });
  }

  /** Null: it cannot be had between two PDUs with everything sent; it stays here. */
  #handOver(tag: number, step: LoginAnswer): Handover | null {
    const login = this.#login;
    if (this.#state !== "admitting" || this.reader.partial || login.target === null) return null;
    const stream = this.#stream.detach?.() ?? null;
    if (stream === null) return null;
    this.#timer.cancel();
    this.#state = "closed";
    this.reader.stop();
    this.#output?.close();
    this.#host.connectionClosed(this, false);
    const { isid, tsih, connectionId, cmdSn, initiatorName, negotiation } = login;
    return {
      stream,
      portal: this.portal,
      portals: this.#host.directory.portalsOf(login.target, this.portal),
      login: { isid, tsih, connectionId, cmdSn, initiatorName },
      parameters: { ...negotiation.parameters },
      declared: [...negotiation.declared],
      answer: {
        initiatorTaskTag: tag,
        stage: step.stage,
        nextStage: step.nextStage,
        text: step.text.toHex(),
      },
      statSn: this.#responses!.statSn,
    };
  }

  /** `session`: of a login that is complete. */
  #answer(tag: number, step: LoginAnswer, session: TargetSession | null): void {
    if (this.#responses!.answer(tag, step, session)) return;
    this.#fail("the initiator does not read its answers");
  }

  #refuse(tag: number, status: number, reason: string): void {
    this.#host.log.warn("Login refused", {
      remote: this.#stream.remote,
      initiator: this.#login.initiatorName,
      target: this.#login.target?.name ?? this.#login.negotiation.declared.get("TargetName") ?? null,
      status: codeText(LoginStatus, status),
      reason,
    });
    this.#responses!.refuse(tag, status);
    this.#close();
  }

  #redirect(tag: number, stage: number, address: SocketAddress, reason: string): void {
    if (this.#state !== "admitting") return;
    this.#note("Login redirected", { to: formatSocketAddress(address), reason });
    this.#responses!.redirect(tag, stage, address);
    this.#close();
  }

  #enterFullFeature(session: TargetSession, tag: number, step: LoginAnswer): void {
    this.#answer(tag, step, session);
    if (this.#state !== "admitting") return session.end("its connection is gone");
    this.#serve(session, this.#responses!.statSn);
    const { headerDigest, dataDigest } = this.#login.negotiation.parameters;
    this.#note("Logged in", { headerDigest, dataDigest });
  }

  #serve(session: TargetSession, statSn: number): void {
    const output = this.#output!;
    const { parameters } = this.#login.negotiation;
    const link = new Link(this.#stream, output, parameters, session.window, statSn);
    link.toldMaxCmdSn = session.window.maxCmdSn;
    link.overflowed = () => this.#overflowed();
    this.#link = link;
    this.session = session;
    output.headerDigest = this.reader.headerDigest = parameters.headerDigest === "CRC32C";
    output.dataDigest = this.reader.dataDigest = parameters.dataDigest === "CRC32C";
    this.reader.dataBytesMax = parameters.ownMaxRecvDataSegmentLength;
    this.#fullFeature = new FullFeature({
      session,
      link,
      negotiation: this.#login.negotiation,
      reader: this.reader,
      clock: this.#host.clock,
      asker: {
        directory: this.#host.directory,
        initiatorName: this.#login.initiatorName,
        portal: this.portal,
        target: this.#login.target,
      },
      close: (reason) => this.#closeFor(reason),
      fail: (reason) => void this.#fail(reason),
      coldReset: () => this.#host.coldReset(session),
    });
    this.#state = "full";
    this.#host.loginOver(this);
    this.#timer.cancel();
    this.#silence.start(session, link);
    session.attach(this);
  }

  /** Goes on with a session and its connection that have been another member's or thread's. */
  static adopt(
    host: ConnectionHost,
    portal: TargetPortal,
    stream: Stream,
    moved: MovedSession,
    target: TargetRecord,
    session: TargetSession,
    from = "another member",
  ): TargetConnection {
    const connection = new TargetConnection(host, portal, stream);
    const { isid, connectionId, initiatorName, expCmdSn } = moved;
    connection.#login = TargetLogin.resume({ directory: host.directory, random: host.random, portal }, {
      login: { isid, connectionId, initiatorName, tsih: session.identity.tsih, cmdSn: expCmdSn },
      parameters: parametersOf(moved),
      declared: moved.declared.map(({ key, value }) => [key, value] as const),
    }, target);
    connection.#anyByte = true;
    connection.#output = new Output(stream, host.rings);
    connection.#serve(session, moved.statSn);
    connection.#note(`Session taken over from ${from}`, { portal: portal.address });
    return connection;
  }

  // Away to another member, or to another thread.

  /** To a member; `owner`, an IPv4 address, gets the client's packets then. A string says why it stays: it goes on as before. */
  depart(owner: string, done: (departure: Departure | string) => void): void {
    const movable = this.#stream.movable ?? null;
    if (movable === null) {
      return done("this machine cannot hand connections over (plimsoll doctor says what is missing)");
    }
    const baggage = ({ deviceServer, nexus }: TargetSession) =>
      deviceServer.departs?.(nexus) ?? "it is no session of a volume";
    this.#leaveBy(exitToMember(movable, owner), baggage, "another member", done);
  }

  /** To another thread, where its nexus is known as here. */
  leaveThread(done: (departure: Departure<DetachedStream> | string) => void): void {
    this.#leaveBy(exitToThread(this.#stream), () => noBaggage, "another thread", done);
  }

  #leaveBy<State>(
    exit: Exit<State>,
    baggage: (session: TargetSession) => NexusBaggage | string,
    to: string,
    done: (departure: Departure<State> | string) => void,
  ): void {
    const session = this.session;
    if (this.#state !== "full" || session === null) return done("its connection is closing");
    if (this.#departing !== null) return done("it is on its way already");
    if (session.discovery) return done("it is no session of a volume");
    this.#silence.stop();
    const departing = new Departing<State>({
      clock: this.#host.clock,
      exit,
      baggage: () => baggage(session),
      reader: this.reader,
      link: this.#link!,
      session,
      fullFeature: this.#fullFeature!,
      login: this.#login,
      open: () => this.#state === "full",
      goOn: (bytes) => this.#stay(bytes),
      gone: () => this.#gone(to),
      fail: (reason) => void this.#fail(reason),
    });
    this.#departing = departing;
    departing.begin(done);
  }

  /** What has waited is looked at now. */
  #stay(bytes: Uint8Array<ArrayBuffer>): void {
    this.#departing = null;
    if (this.#state !== "full") return;
    this.#silence.start(this.session!, this.#link!);
    this.feed(bytes);
  }

  /** What came before this connection was here. */
  feed(bytes: Uint8Array<ArrayBuffer>): void {
    if (bytes.length > 0) this.received(bytes, new DataView(bytes.buffer), 0, bytes.length);
  }

  #gone(to: string): void {
    this.#note(`Session given to ${to}`, {});
    this.#silence.stop();
    this.#state = "closed";
    this.reader.stop();
    this.#fullFeature!.stop();
    this.#link!.closed = true;
    this.session!.leaveForElsewhere();
    this.#output!.close();
    this.#host.connectionClosed(this, false);
  }

  // Ends.

  requestLogout(seconds: number): void {
    if (this.session !== null) this.session.logoutRequested = true;
    this.#asyncMessage(AsyncEvent.logoutRequested.code, seconds);
  }

  /** Takes no more commands; closes when those in flight have been answered. */
  finishAndClose(reason: string): void {
    if (this.#state !== "full") return void this.#fail(reason);
    this.#fullFeature!.quiesce();
    const session = this.session!;
    // A logout in the meantime closes the connection itself, once it has been answered.
    session.whenIdle(() => {
      if (this.#fullFeature!.loggedOut) return;
      this.#link!.whenEmpty(() => this.#closeFor(reason));
    });
  }

  dismiss(reason: string): void {
    if (this.#state !== "full") return;
    this.#note("Session dropped by the target", { reason });
    this.#asyncMessage(AsyncEvent.sessionDropped.code, 0);
    this.#close();
  }

  abort(reason: string): void {
    if (this.#state === "closed" || this.#state === "closing") return;
    this.#note("Connection dropped by the target", { reason });
    this.#abort();
  }

  notify(notice: VendorNotice): void {
    this.#asyncMessage(AsyncEvent.vendor.code, notice.parameter3, notice);
  }

  /** §11.9; `parameter3` is a time in seconds for a logout request. */
  #asyncMessage(event: number, parameter3: number, notice: VendorNotice | null = null): void {
    const link = this.#link;
    if (this.#state !== "full" || link === null) return;
    const at = link.control(Opcode.asyncMessage);
    if (at < 0) return;
    const { view } = link.output;
    AsyncMessage.reserved.set(view, at, reservedTag);
    AsyncMessage.asyncEvent.set(view, at, event);
    AsyncMessage.parameter3.set(view, at, parameter3);
    if (notice !== null) {
      AsyncMessage.asyncVCode.set(view, at, notice.code);
      AsyncMessage.parameter1.set(view, at, notice.parameter1);
      AsyncMessage.parameter2.set(view, at, notice.parameter2);
    }
    link.stampStatus(at);
    link.output.finish(0, null);
  }

  #overflowed(): void {
    // Later: whoever is sending is in the middle of something.
    this.#host.clock.after(0, () => void this.#fail("the initiator does not read its answers"));
  }

  /** The peer broke the protocol, or is dead. Returns false for those who ask whether to go on. */
  #fail(reason: string): false {
    if (this.#state === "closed" || this.#state === "closing") return false;
    const fields = { remote: this.#stream.remote, initiator: this.#login.initiatorName, reason };
    if (this.#anyByte) this.#host.log.warn("Connection dropped", fields);
    this.#abort();
    return false;
  }

  #closeFor(reason: string): void {
    if (this.#state === "closed" || this.#state === "closing") return;
    this.#note("Connection closes", { reason });
    this.#close();
  }

  #close(): void {
    this.#leave("closing");
    this.#timer.cancel();
    this.#timer = this.#host.clock.after(closeTimeMs, () => this.#stream.abort());
    this.#stream.end();
  }

  #abort(): void {
    this.#leave("closing");
    this.#timer.cancel();
    this.#stream.abort();
  }

  /** Everything that must happen once when the connection stops being one. */
  #leave(state: "closing" | "closed"): void {
    const before = this.#state;
    this.#state = state;
    if (before === "closing") return;
    this.#silence.stop();
    this.reader.stop();
    this.#fullFeature?.stop();
    if (before === "full") this.session!.connectionLost(this);
    else this.#host.loginOver(this);
    if (this.#link !== null) this.#link.closed = true;
  }

  #note(message: string, fields: Record<string, unknown>): void {
    this.#host.log.info(message, {
      session: this.session?.identity.id ?? null,
      initiator: this.#login.initiatorName,
      target: this.#login.target?.name ?? null,
      remote: this.#stream.remote,
      ...fields,
    });
  }
}

const nothing = new Uint8Array(0);
