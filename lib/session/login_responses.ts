// Login Responses as one connection sends them (RFC 7143 §11.13). Until the full feature phase nothing else is sent, so they count
// the connection's StatSN.

import { formatSocketAddress, type SocketAddress } from "../base/network.ts";
import { LoginResponse, Opcode } from "../wire/iscsi/bhs.ts";
import { LoginStatus } from "../wire/iscsi/status.ts";
import { formatText } from "../wire/iscsi/text.ts";
import type { Output } from "./output.ts";
import { serialAdd } from "./sequence.ts";
import type { LoginStep, TargetLogin } from "./target_login.ts";
import type { TargetSession } from "./target_session.ts";

export type LoginAnswer = LoginStep & { readonly kind: "answer" };

export class LoginResponses {
  readonly #output: Output;
  readonly #login: TargetLogin;
  #statSn: number;

  /** `statSn`: of the next response. */
  constructor(output: Output, login: TargetLogin, statSn: number) {
    this.#output = output;
    this.#login = login;
    this.#statSn = statSn;
  }

  /** Of what is sent next. */
  get statSn(): number {
    return this.#statSn;
  }

  /** `session`: that of a login that is complete. False: there is no room, since the initiator does not read. */
  answer(tag: number, step: LoginAnswer, session: TargetSession | null): boolean {
    const at = this.#output.begin(0, true);
    if (at < 0) return false;
    const { view } = this.#output;
    LoginResponse.transit.set(view, at, step.nextStage >= 0 ? 1 : 0);
    LoginResponse.continue.set(view, at, step.continue ? 1 : 0);
    LoginResponse.currentStage.set(view, at, step.stage);
    LoginResponse.nextStage.set(view, at, Math.max(0, step.nextStage));
    LoginResponse.tsih.set(view, at, session?.identity.tsih ?? 0);
    this.#finish(at, tag, step.text, session);
    return true;
  }

  /** `status`: class and detail. */
  refuse(tag: number, status: number): void {
    const at = this.#beginEnd(status);
    if (at < 0) return;
    LoginResponse.tsih.set(this.#output.view, at, this.#login.tsih);
    this.#finish(at, tag, nothing, null);
  }

  /** Status 0101h (§11.13.5); the address goes without a tag (§13.8). */
  redirect(tag: number, stage: number, address: SocketAddress): void {
    const at = this.#beginEnd(LoginStatus.targetMovedTemporarily.code);
    if (at < 0) return;
    LoginResponse.currentStage.set(this.#output.view, at, stage);
    const text = formatText([{ key: "TargetAddress", value: formatSocketAddress(address) }]);
    this.#finish(at, tag, text, null);
  }

  /** A response after which the connection closes. -1: there is no room. */
  #beginEnd(status: number): number {
    const at = this.#output.begin(0, true);
    if (at < 0) return at;
    const { view } = this.#output;
    LoginResponse.statusClass.set(view, at, status >>> 8);
    LoginResponse.statusDetail.set(view, at, status & 0xff);
    return at;
  }

  /** Fields that every response has; version 0 is the only one there is. */
  #finish(at: number, tag: number, text: Uint8Array, session: TargetSession | null): void {
    const output = this.#output;
    const { view } = output;
    LoginResponse.opcode.set(view, at, Opcode.loginResponse);
    LoginResponse.isid.set(view, at, this.#login.isid);
    LoginResponse.initiatorTaskTag.set(view, at, tag);
    LoginResponse.statSn.set(view, at, this.#statSn);
    this.#statSn = serialAdd(this.#statSn, 1);
    const window = session?.window;
    LoginResponse.expCmdSn.set(view, at, window?.expCmdSn ?? this.#login.cmdSn);
    LoginResponse.maxCmdSn.set(view, at, window?.maxCmdSn ?? this.#login.cmdSn);
    if (text.length > 0) output.finishWith(text, 0, text.length, null);
    else output.finish(0, null);
  }
}

const nothing = new Uint8Array(0);
