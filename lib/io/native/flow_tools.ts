// What this machine needs to lend and to borrow connections, found or told missing at start.

import type {
  BorrowedFlow,
  FlowBorrower,
  FlowHome,
  FlowPoint,
  FlowTaker,
  KeptFlow,
  TcpState,
} from "../../base/flow.ts";
import type { DetachedStream, SocketAddress, Stream, StreamHandler } from "../../base/network.ts";
import { BorrowedSocket } from "./borrowed_socket.ts";
import { missingCapabilities } from "./capabilities.ts";
import { FlowLender } from "./flow_lender.ts";
import { FlowRoutes } from "./flow_routes.ts";
import { FlowRules } from "./flow_rules.ts";
import { keepFlows, keepNoFlows } from "./kept_flows.ts";
import { libc, libcMissing } from "./libc.ts";
import type { NativeLoop } from "./loop.ts";
import { closeSilently, repairProblem, restoreWhole } from "./tcp_repair.ts";

export class FlowTools implements FlowBorrower, FlowHome, FlowTaker {
  readonly rules: FlowRules;
  readonly lender: FlowLender;
  /** Makes a stream of a descriptor; set by the network whose streams can be moved. */
  adopt: ((stream: DetachedStream, handler: (stream: Stream) => StreamHandler) => void) | null = null;
  readonly #loop: NativeLoop;
  readonly #routes: FlowRoutes;

  /** Throws when flowProblems() would have named something, and for what only trying tells. */
  constructor(loop: NativeLoop) {
    this.#loop = loop;
    this.rules = new FlowRules(Deno.pid);
    this.lender = new FlowLender(loop, this.rules);
    try {
      this.#routes = new FlowRoutes(this.rules.mark);
    } catch (error) {
      this.lender.close();
      throw error;
    }
  }

  provoke(lent: FlowPoint): void {
    this.lender.provoke(lent);
  }

  reaches(address: string): boolean {
    return this.lender.reaches(address);
  }

  close(): void {
    this.#routes.close();
    this.lender.close();
  }

  borrow(state: TcpState, timeMs: number): BorrowedFlow | string {
    try {
      if (!this.reaches(state.client.hostname)) return "the initiator is no neighbour of this machine";
      return new BorrowedSocket(this.#loop, state, timeMs, (lent) => this.provoke(lent));
    } catch (error) {
      return (error as Error).message;
    }
  }

  take(state: TcpState, handler: (stream: Stream) => StreamHandler): string | null {
    const { client, portal } = state;
    if (this.adopt === null) return "its network takes no connections over";
    if (!this.reaches(client.hostname)) return "the initiator is no neighbour of this machine";
    let descriptor = -1;
    try {
      descriptor = restoreWhole(state);
      this.rules.endMove(client, portal); // it may have been ours before
    } catch (error) {
      if (descriptor >= 0) closeSilently(descriptor); // it is somebody else's still
      return (error as Error).message;
    }
    this.adopt({ descriptor, local: portal, remote: client }, handler);
    return null;
  }

  attach(stream: DetachedStream, handler: (stream: Stream) => StreamHandler): void {
    this.adopt!(stream, handler);
  }

  steer(client: SocketAddress, portal: SocketAddress, owner: string | null): void {
    if (owner === null) this.rules.endMove(client, portal);
    else this.rules.move(client, portal, owner);
  }

  keep(name: string, flows: readonly KeptFlow[], timeMs: number): void {
    keepFlows(name, flows, timeMs);
  }

  keepNoMore(name: string): void {
    keepNoFlows(name);
  }
}

/** What is missing for short cuts on this machine, a sentence each; nothing of it is kept. */
export function flowProblems(): string[] {
  if (libc() === null) return [`The C library cannot be called: ${libcMissing()}.`];
  const problems = missingCapabilities();
  if (problems.length > 0) return problems;
  attempt(problems, "take over TCP connections (CONFIG_CHECKPOINT_RESTORE)", repairProblem);
  attempt(problems, "steer packets (nf_tables with nft_dup_ipv4 and nft_socket)", () => {
    const rules = new FlowRules(Deno.pid);
    try {
      attempt(
        problems,
        "route by marks (CONFIG_IP_MULTIPLE_TABLES)",
        () => new FlowRoutes(rules.mark).close(),
      );
    } finally {
      rules.close();
    }
  });
  return problems;
}

function attempt(problems: string[], what: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    problems.push(`The kernel cannot ${what}: ${(error as Error).message}.`);
  }
}
