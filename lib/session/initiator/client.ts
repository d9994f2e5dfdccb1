// Promises over an initiator session, for tests and tools. The session itself is callbacks; so is the data path.

import type { Clock } from "../../base/clock.ts";
import type { Network, SocketAddress } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import { LogoutReason } from "../../wire/iscsi/status.ts";
import type { TextPair } from "../../wire/iscsi/text.ts";
import type { Wishes } from "../negotiation.ts";
import type { ChapIdentity } from "../target_directory.ts";
import { type CommandOutcome, type ControlAnswer, InitiatorCommand, type ReceivedPdu } from "./command.ts";
import type { SessionEnd } from "./options.ts";
import { InitiatorSession } from "./session.ts";

export interface ClientOptions {
  readonly portal: SocketAddress;
  readonly initiatorName: string;
  /** Absent or null: a discovery session. */
  readonly targetName?: string | null;
  /** 48 bits; absent: random (RFC 7143 §11.12.5, type "Random"). */
  readonly isid?: number;
  readonly chap?: ChapIdentity;
  readonly mutual?: ChapIdentity;
  /** Numbers of CHAP_A in the order of preference. */
  readonly chapAlgorithms?: readonly number[];
  /** True: CRC32C or no login. Absent: none. */
  readonly headerDigest?: boolean;
  readonly dataDigest?: boolean;
  readonly wishes?: Partial<Wishes>;
  /** Replaces the connection of this session; `isid` must be the same. */
  readonly rejoin?: InitiatorSession;
  readonly connectTimeoutMs?: number;
  readonly loginTimeoutMs?: number;
  readonly nopIntervalMs?: number;
  readonly nopTimeoutMs?: number;
  /** Sees every PDU of full feature phase; true: the session ignores it. */
  readonly intercept?: (pdu: ReceivedPdu) => boolean;
}

export interface CommandOptions {
  /** LUN below 256 (peripheral device addressing). */
  readonly lun?: number;
  readonly attribute?: number;
  readonly dataOut?: Uint8Array;
  /** Expected data transfer length of a read, bytes. */
  readonly dataInMax?: number;
  /** Told when the command is filed, to abort it later. */
  readonly started?: (command: InitiatorCommand) => void;
}

export interface CommandResult {
  readonly outcome: CommandOutcome;
  readonly reason: string;
  readonly response: number;
  readonly status: number;
  readonly sense: Uint8Array;
  readonly data: Uint8Array;
  /** Positive: underflow; negative: overflow. */
  readonly residual: number;
}

/** What `connect` rejects with when there is no session. */
export class LoginError extends Error {
  override name = "LoginError";
  readonly end: SessionEnd;
  /** Status-Class and Status-Detail, or null when the target did not say. */
  readonly status: number | null;

  constructor(message: string, end: SessionEnd) {
    super(message);
    this.end = end;
    this.status = end.kind === "loginFailed" ? end.status : null;
  }
}

export class InitiatorClient {
  readonly session: InitiatorSession;
  /** Resolves when the session is over, with the reason. */
  readonly closed: Promise<SessionEnd>;
  /** Asynchronous messages and rejects that came, the newest last, at most 1000 of them. */
  readonly asyncMessages: ReceivedPdu[] = [];
  readonly rejects: ReceivedPdu[] = [];

  private constructor(session: InitiatorSession, closed: Promise<SessionEnd>) {
    this.session = session;
    this.closed = closed;
  }

  /** Connects and logs in. Rejects with LoginError, or with the network's error. */
  static async connect(
    network: Network,
    clock: Clock,
    random: RandomSource,
    options: ClientOptions,
  ): Promise<InitiatorClient> {
    const loggedIn = Promise.withResolvers<void>();
    const closed = Promise.withResolvers<SessionEnd>();
    loggedIn.promise.catch(() => {}); // it may fail before it is awaited
    let client: InitiatorClient | null = null;
    await network.connect(options.portal, options.connectTimeoutMs ?? 5_000, (stream) => {
      const session = new InitiatorSession(stream, clock, random, sessionOptions(options, random), {
        loggedIn: () => loggedIn.resolve(),
        closed(end) {
          closed.resolve(end);
          loggedIn.reject(new LoginError(`Cannot log in to ${targetOf(options)}: ${words(end)}.`, end));
        },
        asyncMessage: (_event, pdu) => keep(client!.asyncMessages, pdu),
        rejected: (_reason, pdu) => keep(client!.rejects, pdu),
        ...(options.intercept === undefined ? {} : { received: options.intercept }),
      });
      client = new InitiatorClient(session, closed.promise);
      session.start();
      return session;
    });
    await loggedIn.promise;
    return client!;
  }

  /** Carries out one SCSI command; never rejects: how it ended is in the result. */
  command(cdb: readonly number[] | Uint8Array, options: CommandOptions = {}): Promise<CommandResult> {
    const command = new InitiatorCommand();
    command.cdb.set(cdb);
    command.lunHigh = (options.lun ?? 0) << 16;
    command.attribute = options.attribute ?? 1;
    if (options.dataOut !== undefined) {
      command.dataOut = options.dataOut;
      command.dataOutLength = options.dataOut.length;
    }
    if (options.dataInMax !== undefined) {
      command.dataIn = new Uint8Array(options.dataInMax);
      command.dataInLength = options.dataInMax;
    }
    return new Promise((resolve) => {
      command.done = () => resolve(resultOf(command));
      this.session.submit(command);
      options.started?.(command);
    });
  }

  /** A task management function by its code; the response code, or null when the session ended before. */
  taskManagement(fn: number, lun = 0, referenced: InitiatorCommand | null = null): Promise<number | null> {
    return new Promise((resolve) => {
      this.session.manage(fn, lun << 16, 0, referenced, (answer) => resolve(responseOf(answer)));
    });
  }

  /** A text exchange. Rejects when it fails. */
  text(pairs: readonly TextPair[]): Promise<readonly TextPair[]> {
    return new Promise((resolve, reject) => {
      this.session.text(pairs, (answer) => {
        if (answer.kind === "text") resolve(answer.pairs);
        else {reject(
            new Error(`Cannot exchange text: ${answer.kind === "failed" ? answer.reason : answer.kind}.`),
          );}
      });
    });
  }

  /** Targets and their addresses, as `SendTargets=value` tells them (RFC 7143 Appendix C). */
  async sendTargets(value = "All"): Promise<{ readonly name: string; readonly addresses: string[] }[]> {
    const targets: { name: string; addresses: string[] }[] = [];
    for (const pair of await this.text([{ key: "SendTargets", value }])) {
      if (pair.key === "TargetName") targets.push({ name: pair.value, addresses: [] });
      else if (pair.key === "TargetAddress") targets.at(-1)?.addresses.push(pair.value);
    }
    return targets;
  }

  /** The data that came back, or null when the session ended before. */
  ping(data: Uint8Array = new Uint8Array(0)): Promise<Uint8Array | null> {
    return new Promise((resolve) => {
      this.session.ping(data, (answer) => resolve(answer.kind === "pong" ? answer.data : null));
    });
  }

  /** Logs out and waits for the end. The response code, or null when the connection was lost before. */
  async logout(reason = LogoutReason.closeSession.code): Promise<number | null> {
    const answer = await new Promise<ControlAnswer>((resolve) => this.session.logout(reason, resolve));
    if (answer.kind === "response") await this.closed;
    return responseOf(answer);
  }

  /** Cuts the connection without a word. */
  async abort(): Promise<void> {
    this.session.abort("aborted by the caller");
    await this.closed;
  }
}

function sessionOptions(options: ClientOptions, random: RandomSource) {
  const digest = (wanted: boolean | undefined) => wanted === true ? ["CRC32C"] : ["None"];
  const given = <K extends string, V>(key: K, value: V | undefined) =>
    (value === undefined ? {} : { [key]: value }) as { [P in K]?: V };
  return {
    initiatorName: options.initiatorName,
    targetName: options.targetName ?? null,
    chap: options.chap ?? null,
    mutual: options.mutual ?? null,
    isid: options.isid ?? randomIsid(random),
    wishes: {
      headerDigest: digest(options.headerDigest),
      dataDigest: digest(options.dataDigest),
      ...options.wishes,
    },
    ...given("chapAlgorithms", options.chapAlgorithms),
    ...(options.rejoin === undefined ? {} : {
      rejoin: { tsih: options.rejoin.tsih, parameters: options.rejoin.parameters },
      cmdSn: options.rejoin.cmdSn,
    }),
    ...given("loginTimeoutMs", options.loginTimeoutMs),
    ...given("nopIntervalMs", options.nopIntervalMs),
    ...given("nopTimeoutMs", options.nopTimeoutMs),
  };
}

/** RFC 7143 §11.12.5: type 10b, 24 random bits and 16 bits of qualifier. */
function randomIsid(random: RandomSource): number {
  const bytes = new Uint8Array(5);
  random.fill(bytes);
  return bytes.reduce((isid, byte) => isid * 256 + byte, 0x80);
}

function resultOf(command: InitiatorCommand): CommandResult {
  const { outcome, reason, response, status, sense, residual } = command;
  const data = command.dataIn?.subarray(0, command.dataInReceived) ?? new Uint8Array(0);
  return { outcome, reason, response, status, sense, data, residual };
}

function responseOf(answer: ControlAnswer): number | null {
  return answer.kind === "response" ? answer.response : null;
}

function targetOf(options: ClientOptions): string {
  return options.targetName ?? `the discovery session of ${options.portal.hostname}:${options.portal.port}`;
}

function words(end: SessionEnd): string {
  if (end.kind === "redirected") return `the target has moved to ${end.address}`;
  return end.kind === "loggedOut" ? "it was logged out" : end.reason;
}

function keep(list: ReceivedPdu[], pdu: ReceivedPdu): void {
  list.push(pdu);
  if (list.length > 1000) list.shift();
}
