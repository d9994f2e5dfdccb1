// The routing's part of borrowing a connection: packets with our mark are for this machine, whatever address they name, so
// that a borrowed connection gets its client's packets although the address is the lender's.

import { Errno } from "./errno.ts";
import { CallError, flowCalls } from "./flow_calls.ts";
import { markInUse } from "./flow_rules.ts";
import {
  attributesOf,
  nativeEndian,
  NetlinkBatch,
  NetlinkSocket,
  Request,
  zeroTerminated,
} from "./netlink.ts";
import { inet, localType, netlinkRoute, routeHeader } from "./route_lookup.ts";

const Message = { newRoute: 24, deleteRoute: 25, newRule: 32, deleteRule: 33, getRule: 34 };
const rulePriority = 20_556;
const Rule = { priority: 6, mark: 10, table: 15, mask: 16 };
const Route = { outInterface: 4, table: 15 };
const lookUp = 1; // FR_ACT_TO_TBL
const hostScope = 254;
const ownProtocol = 4; // RTPROT_STATIC

export class FlowRoutes {
  readonly #socket: NetlinkSocket;
  readonly #batch = new NetlinkBatch();
  readonly #mark: number;

  /** Makes rule and route; takes those away whose process has died. Throws CallError. */
  constructor(mark: number) {
    this.#mark = mark;
    this.#socket = new NetlinkSocket(netlinkRoute);
    try {
      for (const stale of this.#marks()) if (stale !== mark && !markInUse(stale)) this.#remove(stale);
      this.#remove(mark); // of a process with the same number, which is common in containers
      this.#rule(Message.newRule, Request.create | Request.exclusive, mark);
      this.#route(Message.newRoute, Request.create | Request.exclusive, mark);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    try {
      this.#remove(this.#mark);
    } catch { /* they mean nothing without the packet filter's table, and the next start removes them */ }
    this.#socket.close();
  }

  #marks(): number[] {
    const b = this.#batch;
    b.clear();
    b.message(Message.getRule, Request.dump, ruleHeader);
    return this.#socket.list(b, "Cannot list routing rules", Message.newRule).flatMap((body) => {
      let priority = 0;
      let mark = 0;
      for (const [type, value] of attributesOf(body, ruleHeader.length)) {
        if (type === Rule.priority) priority = value.getUint32(0, true);
        if (type === Rule.mark) mark = value.getUint32(0, true);
      }
      return priority === rulePriority && mark >>> 28 === 5 ? [mark] : [];
    });
  }

  #remove(mark: number): void {
    for (
      const remove of [
        () => this.#rule(Message.deleteRule, 0, mark),
        () => this.#route(Message.deleteRoute, 0, mark),
      ]
    ) {
      try {
        remove();
      } catch (error) {
        const gone = error instanceof CallError &&
          (error.errno === Errno.ENOENT || error.errno === Errno.ESRCH);
        if (!gone) throw error;
      }
    }
  }

  #rule(type: number, flags: number, mark: number): void {
    const b = this.#batch;
    b.clear();
    b.message(type, flags | Request.acknowledge, ruleHeader, () => {
      b.attribute(Rule.priority, nativeEndian(rulePriority));
      b.attribute(Rule.mark, nativeEndian(mark));
      b.attribute(Rule.mask, nativeEndian(0xffff_ffff));
      b.attribute(Rule.table, nativeEndian(mark));
    });
    this.#socket.commit(b, "Cannot change routing rules");
  }

  #route(type: number, flags: number, mark: number): void {
    const b = this.#batch;
    b.clear();
    b.message(type, flags | Request.acknowledge, routeHeader(0, ownProtocol, hostScope, localType), () => {
      b.attribute(Route.outInterface, nativeEndian(flowCalls().if_nametoindex(zeroTerminated("lo"))));
      b.attribute(Route.table, nativeEndian(mark));
    });
    this.#socket.commit(b, "Cannot change routes");
  }
}

/** struct fib_rule_hdr: family, lengths, type of service, table, reserved, action, flags. */
const ruleHeader = Uint8Array.of(inet, 0, 0, 0, 0, 0, 0, lookUp, 0, 0, 0, 0);
