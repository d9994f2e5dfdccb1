// This member among the others, as far as data goes: it carries block operations to pages that have their homes there, and
// serves theirs on its peer address. A group of one has no door for peers.

import { type BufferMemory, BufferPool } from "../../base/buffer_pool.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import type { FlowBorrower } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import { formatSocketAddress, type Listener, type Network, type SocketAddress } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import { parseAddress } from "../../config/address.ts";
import {
  HomeServer,
  hopsMax,
  IncomingPages,
  type IncomingStore,
  type KeepOff,
  MemberDirectory,
  MemberForwarder,
  memberName,
  MessageServer,
  Messenger,
} from "../../forward/mod.ts";
import { Followed } from "../../meta/followed.ts";
import type { KeyValue, Metadata } from "../../meta/metadata.ts";
import {
  decodeRecord,
  type DiskRecord,
  type GroupRecord,
  keys,
  type MemberRecord,
} from "../../meta/records.ts";
import type { Router } from "../../route/router.ts";
import { Borrower, Lender } from "../../shortcut/mod.ts";
import { MessageKind } from "../../wire/scsi/member_message.ts";
import { TargetNode } from "../../session/target_node.ts";
import type { Members } from "./members.ts";

/** docs/short-cut.md. */
export interface ShortCutParts {
  readonly flows: FlowBorrower;
  /** Whether an answer of so many bytes is better sent by its home. */
  readonly worth: (lengthBytes: number) => boolean;
}

export interface ForwardingParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly network: Network;
  readonly log: Log;
  readonly group: GroupRecord;
  readonly secret: string;
  readonly member: MemberRecord;
  /** Where this member serves its peers. */
  readonly peer: SocketAddress;
  readonly router: Router;
  readonly members: Pick<Members, "find" | "fellows" | "held">;
  readonly exclude: KeepOff;
  /** Of data buffers; absent: the thread's own. */
  readonly poolMemory?: BufferMemory;
  /** Is the page about to get another home? */
  readonly leaving: (image: number, page: number) => boolean;
  /** Disks of this member. */
  readonly storeOf: (placement: number) => IncomingStore | null;
  /** Null: connections are neither lent nor borrowed. */
  readonly shortCuts: ShortCutParts | null;
  /** The route table of the image may be older than that of another member. */
  readonly behind: (image: number) => void;
  /** A session with another member has been made anew: its disks may have lost writes. */
  readonly homeReturned: (member: string) => Promise<void>;
}

const retryMs = 1_000;
/** Text of logins and the like: data has pools of its own. */
const controlBufferBytes = 1024 * 1024;

export class Forwarding {
  readonly forwarder: MemberForwarder;
  /** Messages to the other members, and theirs. */
  readonly messenger: Messenger;
  readonly messages: MessageServer;
  /** Pages that others are giving to this member. */
  readonly incoming: IncomingPages;
  readonly #parts: ForwardingParts;
  readonly #servers: readonly HomeServer[];
  readonly #node: TargetNode;
  /** Whose disk a placement id stands for. */
  readonly #placements = new Map<number, DiskRecord>();
  readonly #followed: Followed;
  #listener: Listener | null = null;
  #ready = false;
  #listening = false;
  #retry: Timer | null = null;
  #trouble: string | null = null;
  #closed = false;

  constructor(parts: ForwardingParts) {
    this.#parts = parts;
    this.#followed = new Followed({
      ...parts,
      prefix: keys.diskPrefix,
      read: (entries) => entries.forEach((entry) => this.#learn(entry)),
      seen: (events) => {
        for (const event of events) if (event.kind === "put") this.#learn(event.entry); // placements are never used again
      },
    });
    const { clock, random, log, group, secret, member, members, router } = parts;
    this.forwarder = new MemberForwarder({
      ...parts,
      iqnPrefix: group.iqnPrefix,
      member: member.name,
      peerOf: (name) => this.#peerOf(name),
      memberOf: (placement) => this.memberOf(placement),
      table: (image) => router.table(image),
      isLocal: (placement) => router.isLocal(placement),
      submitLocal: (placement, operation) => router.submitTo(placement, operation),
      behind: (image) => parts.behind(image),
    });
    router.setForwarder(this.forwarder);
    this.messenger = new Messenger({
      ...parts,
      iqnPrefix: group.iqnPrefix,
      member: member.name,
      peerOf: (name) => this.#peerOf(name),
    });
    this.messages = new MessageServer(memberName(group.iqnPrefix, ""));
    this.#takeShortCuts();
    this.incoming = new IncomingPages({
      routes: router,
      pageBytes: group.pageBytes,
      exclude: parts.exclude,
      storeOf: parts.storeOf,
      leaving: parts.leaving,
      initiatorOf: (placement) => {
        const home = this.memberOf(placement);
        return home === null ? null : memberName(group.iqnPrefix, home);
      },
      behind: (image) => parts.behind(image),
    });
    this.#servers = Array.from({ length: hopsMax }, (_, i) =>
      new HomeServer({
        routes: router,
        pageBytes: group.pageBytes,
        hops: i + 1,
        mayServe: members.held,
        behind: (image) => parts.behind(image),
        exclude: parts.exclude,
        incoming: this.incoming,
      }));
    const classes = this.#servers.map((server) => ({
      server,
      pool: this.#dataPool(limits.forwardBufferBytesMax),
    }));
    this.#node = new TargetNode({
      clock,
      random,
      log,
      pool: new BufferPool(controlBufferBytes),
      directory: new MemberDirectory(group.iqnPrefix, member.name, secret, [
        ...classes,
        this.messages.hopClass,
      ]),
      relativeTargetPort: member.relativeTargetPort,
    });
  }

  #dataPool(bytesMax: number): BufferPool {
    return new BufferPool(bytesMax, 0, this.#parts.poolMemory);
  }

  #takeShortCuts(): void {
    const { clock, log, router, group, members, shortCuts } = this.#parts;
    if (shortCuts === null) return;
    const { messenger, messages } = this;
    const lender = new Lender({
      clock,
      log,
      messenger,
      worth: shortCuts.worth,
      reaches: (address) => shortCuts.flows.reaches(address),
      addressOf: (name) => this.#peerOf(name)?.address.hostname ?? null,
    });
    const { flows } = shortCuts;
    const { pageBytes } = group;
    const borrower = new Borrower({
      clock,
      log,
      messenger,
      flows,
      routes: router,
      pageBytes,
      pool: this.#dataPool(limits.shortCutBufferBytesMax),
      mayServe: members.held,
    });
    router.setAnswerers((placement, extent) => {
      const member = this.memberOf(placement);
      return member === null ? null : lender.answerer(member, extent);
    });
    messages.listen(MessageKind.giveBack, lender.givenBack);
    messages.listen(MessageKind.lend, borrower.lent);
  }

  /** The member whose disk a placement id stands for; null: not known (yet). */
  memberOf(placement: number): string | null {
    return this.#placements.get(placement)?.member ?? null;
  }

  /** The disks of the group, by placement id. */
  disks(): DiskRecord[] {
    return [...this.#placements.values()].sort((a, b) => a.placement - b.placement);
  }

  /** A sentence for the operator when the peers' door cannot be opened. */
  notices(): string[] {
    return this.#trouble === null ? [] : [this.#trouble];
  }

  /** Learns which disk is whose, now and from now on. */
  follow(): Promise<void> {
    return this.#followed.follow();
  }

  #learn({ key, value }: KeyValue): void {
    const record = decodeRecord<DiskRecord>(key, value);
    this.#placements.set(record.placement, record);
  }

  /**
   * Peers may come from now on: it has been noted which writes the disks have lost, and who logs in reads that note
   * before it flushes anything.
   */
  ready(): void {
    this.#ready = true;
    this.fellowsChanged();
  }

  /** Opens the door for peers as soon as there is one. */
  fellowsChanged(): void {
    const wanted = this.#ready && this.#parts.members.fellows().length > 0;
    if (!wanted || this.#listening || this.#closed) return;
    this.#listening = true;
    void this.#listen();
  }

  /** Resolves when no store of this member works on the image for others. The router must not know the image any more. */
  async quiet(image: number): Promise<void> {
    for (const server of this.#servers) {
      await new Promise<void>((done) => server.whenQuiet(image, done));
    }
  }

  /** Nothing is forwarded any more, and what others have asked for is finished. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#followed.close();
    this.#retry?.cancel();
    this.forwarder.close();
    this.messenger.close();
    await this.#listener?.close();
    await new Promise<void>((done) => this.#node.stop(done));
  }

  #peerOf(name: string) {
    const live = this.#parts.members.find(name);
    if (live === null) return null;
    const parsed = parseAddress(live.peer);
    return parsed.kind === "address" ? { address: parsed.address, run: live.run } : null;
  }

  async #listen(): Promise<void> {
    const { network, clock, log, member, peer } = this.#parts;
    const portal = { address: peer, targetPortalGroupTag: member.targetPortalGroupTag };
    const where = formatSocketAddress(peer);
    try {
      const listener = await network.listen(peer, (stream) => this.#node.accept(portal, stream));
      if (this.#closed) return await listener.close();
      this.#listener = listener;
      this.#trouble = null;
      log.info("serving the other members", { peer: where });
    } catch (error) {
      const { message } = error as Error;
      const trouble = `Cannot serve the other members on ${where}: ${message}. ` +
        "Their clients cannot reach this member's pages. Set [member] peer to an address and port of this member's own.";
      if (this.#trouble === null) log.error(trouble);
      this.#trouble = trouble;
      if (!this.#closed) this.#retry = clock.after(retryMs, () => void this.#listen());
    }
  }
}
