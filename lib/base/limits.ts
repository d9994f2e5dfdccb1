// Every limit of Plimsoll, each with the sum that led to it (STYLE.md, rule 15). Nothing queues unbounded.

const KiB = 1024;
const MiB = 1024 * KiB;

export const limits = Object.freeze({
  /** TCP connections of one member that are open at a time; one more is closed at once. 64 hosts x 4 paths. */
  connectionsMax: 256,
  /** Connections that have not finished login, of all portals; one more is closed at once. */
  connectionsInLoginMax: 64,
  /** Full feature phase sessions of one member. */
  sessionsMax: 256,
  /** From accept to full feature phase, milliseconds. iscsid gives a login 15 s; a slow one needs no more. */
  loginTimeMsMax: 15_000,
  /** Login requests of one connection. Stages x CHAP steps x continued text need about 12. */
  loginRequestsMax: 64,
  /** Text of one negotiation (C bit included), bytes. The keys of RFC 7143 §13 together need under 4 KiB. */
  textBytesMax: 16 * KiB,
  /** MaxRecvDataSegmentLength we declare, bytes. Linux sends 256 KiB segments at most. */
  receiveDataSegmentBytesMax: 256 * KiB,
  /** MaxBurstLength we accept, bytes. */
  burstBytesMax: 16 * MiB,
  /**
   * FirstBurstLength we accept, bytes. Unsolicited data must have its buffer before it is asked for: every command that
   * MaxCmdSN lets in costs this much of dataBufferBytesMax. 64 KiB gives 8 sessions all 128 commands, and each of 256 one.
   */
  firstBurstBytesMax: 64 * KiB,
  /** Additional header segments of one PDU, bytes: the field has 8 bits of 4-byte words. */
  ahsBytesMax: 255 * 4,
  /** Commands of one session in flight (CmdSN window). Linux queues 32 to 128 by default. */
  commandsPerSessionMax: 128,
  /** Immediate commands of one session in flight; one more is rejected (RFC 7143 §3.2.2.1). */
  immediateCommandsMax: 16,
  /** Data-Out of ended commands is told from nonsense by the tags of so many: one window. */
  endedTagsMax: 128,
  /** Numbered PDUs that came ahead of their turn and wait, bytes of their data beside SCSI data. One text each would do. */
  aheadBytesMax: 256 * KiB,
  /** Task management functions of one session in progress; one more is rejected. */
  taskManagementMax: 16,
  /** Time that task management waits for data the initiator was asked for, milliseconds. libiscsi never sends it. */
  abortDataTimeMsMax: 1_000,
  /** Headers of one connection on their way out, bytes: 512 of data, 1,536 of control (8 R2Ts of 144 commands are 1,152). */
  outputRingBytes: 128 * KiB,
  outputRingDataBytes: 32 * KiB,
  /** Rings of connections that have ended which a thread keeps for the next ones: 64 of 156 KiB are 10 MiB, one login storm. */
  idleOutputRingsMax: 64,
  /** Read data of one connection handed to the stream before it is sent, bytes: what a 10 Gbit/s link sends in 0.8 ms. */
  sendAheadBytes: 1 * MiB,
  /** What initiators are given to log out in when the target stops, milliseconds, and until everything is closed. */
  stopLogoutTimeMs: 1_000,
  stopCloseTimeMs: 4_000,
  /** MaxOutstandingR2T we accept. */
  outstandingR2tMax: 8,
  /** Bytes of answers a peer has not read before its connection is dropped (data of commands in the window aside). */
  unsentControlBytesMax: 1 * MiB,
  /** Largest transfer of one command, bytes: told in VPD B0 as MAXIMUM TRANSFER LENGTH. */
  transferBytesMax: 8 * MiB,
  /** Data buffers of one member, bytes, shared by all its connections: 256 MiB serve 64 connections x 32 x 128 KiB. */
  dataBufferBytesMax: 256 * MiB,
  /**
   * Threads of the data plane: one a core by default, and no machine has been seen that wants more. dataBufferBytesMax is
   * divided evenly among them: 16 MiB each for 16, which still hold the largest transfer twice.
   */
  workersMax: 16,
  /**
   * One session holds at most one part in so many of the data buffers that are free, one buffer aside: alone 28 MiB of
   * 256, which is 113 commands x 256 KiB; the ninth that takes all it can get leaves 88 MiB, the thirtieth 7.
   */
  sessionShareOfPool: 8,
  /**
   * The buffer that each session has for one command when others have taken all of the data buffers, bytes: the transfer
   * that Linux splits large ones into by default. sessionsMax of them are 64 MiB beside dataBufferBytesMax.
   */
  sessionOwnBytes: 256 * KiB,
  /** Silence before the target sends a NOP-In ping, milliseconds. */
  nopIntervalMs: 15_000,
  /** An unanswered ping ends the connection after this many milliseconds. */
  nopTimeoutMs: 15_000,
  /**
   * Looks in a row, one each nopIntervalMs, at which nothing has moved of the data that an initiator was asked for or is
   * to read, before its connection is dropped: 30 s, as long as silence takes. It holds buffers that others wait for.
   */
  stalledLooksMax: 2,
  /** Registered I_T nexuses of persistent reservations of one volume. */
  registrationsMax: 128,
  /**
   * A unit's record in the metadata: changes that it still tells of (a member that missed more takes it for a reset), and bytes:
   * 128 registrations and as many nexuses with unit attentions, of 330 bytes each, are 84 KiB.
   */
  unitChangesMax: 32,
  unitRecordBytesMax: 256 * KiB,
  /** How long a change of a unit waits for members that live and do not obey, milliseconds: a lease and as much again. */
  unitTellMsMax: 25_000,
  /** One attempt to tell a member; and what it takes to obey before it says that it is still at it. */
  unitTellTryMs: 2_000,
  unitObeyMs: 1_000,
  /** Pause between two attempts to tell. */
  unitTellRetryMs: 100,
  /** Processes that know a unit, as its record names them: twice membersMax, for those that were started anew. */
  unitRunsMax: 64,
  /** Attempts at one change of a unit while other members are first: 32 of them each win once. */
  unitAttemptsMax: 100,
  /** Volumes of one group. */
  volumesMax: 1024,
  /** Logical blocks of one UNMAP: 512 MiB of 512-byte blocks; and descriptors of its parameter list (VPD B0). */
  unmapBlocksMax: 0x10_0000,
  unmapDescriptorsMax: 256,
  /** Blocks of one WRITE SAME (VPD B0): 16 MiB of 512-byte blocks, whole pages of every size up to that. */
  writeSameBlocksMax: 0x8000,
  /** Time a stop may take beside the flush, milliseconds. */
  stopTimeMsMax: 5_000,
  /** Body of one admin request, bytes: 128 initiator patterns of 223 bytes (RFC 7143 §4.2.7.1) and the rest is 30 KiB. */
  adminBodyBytesMax: 64 * KiB,
  /** Time for the body of an admin request to arrive, milliseconds. It comes from the same machine. */
  adminBodyTimeMsMax: 10_000,
  /** Admin requests served at a time; one more is answered 503. An operator, a dashboard and a few scripts. */
  adminRequestsMax: 64,
  /** Changes and comparisons of one metadata transaction; etcd takes 128 by default. */
  metadataChangesMax: 64,
  /** Bytes of all values of one metadata transaction: 16 route chunks of 64 KiB; etcd takes 1.5 MiB by default. */
  metadataTransactionBytesMax: 1 * MiB,
  /** Length of a metadata key: "volume-name/" and an iSCSI name (223) fit twice. */
  metadataKeyLengthMax: 512,
  /** Metadata calls of one member that wait for the driver; a start of 1024 volumes with two calls each fits. */
  metadataCallsMax: 4096,
  /**
   * Lease of a member, milliseconds: when it dies, others know after so long; the metadata may be away for what is left
   * of it after a renewal, 6.5 to 9 s. Renewed every quarter, so that three may fail.
   */
  memberLeaseMs: 10_000,
  memberRenewMs: 2_500,
  /** From a failed renewal to the next try. */
  memberRenewRetryMs: 500,
  /** So much earlier than the store a member takes its lease for ended: far more than clocks drift in 10 s. */
  memberLeaseMarginMs: 1_000,
  /**
   * Lease of the group's address, milliseconds: shorter than a member's, since no data hangs on it, and such that clients of a dead
   * holder are back within 5 s. The kernel is told 3 whole seconds with each renewal (2 when the answer took more than 0.1 s), of which two may fail.
   */
  groupAddressLeaseMs: 3_500,
  groupAddressRenewMs: 750,
  groupAddressRenewRetryMs: 250,
  groupAddressMarginMs: 400,
  /** From a trouble with the group's address (another machine has it, its port is in use) to the next try of this member. */
  groupAddressRestMs: 10_000,
  /** So long a member that is being drained leaves the group's address to others before it takes it itself. */
  groupAddressDrainedMs: 5_000,
  /** Members of one group: each watches all others, and placement ids end at 255. */
  membersMax: 32,
  /** Parameter list of one PERSISTENT RESERVE OUT, bytes: 28 and a TransportID of at most 248 for each registration. */
  persistentReserveOutBytesMax: 28 + 128 * 248,
  /** Pages of one volume: 64 TiB of 4 MiB pages, 16 MiB of route table on every member. */
  volumePagesMax: 16 * 1024 * 1024,
  /** Block operations of one command in flight at a time: 8 MiB over pages of 1 MiB touch 9 pages. */
  partsPerCommandMax: 9,
  /** Bytes that VERIFY and EXTENDED COPY move in one step, through one buffer of the logical unit. */
  stepBufferBytes: 256 * KiB,
  /** LBA status descriptors of one GET LBA STATUS answer, and pages it looks at: 4096 pages of 4 MiB are 16 GiB. */
  lbaStatusDescriptorsMax: 256,
  lbaStatusStepsMax: 4096,
  /** Initiator ports that have been told of lost writes, remembered until the process ends. */
  writesLostToldMax: 4096,
  /** Buffers of 256 KiB in which one store compares, ORs and repeats blocks: 8 MiB; one more operation waits. */
  storeScratchBuffersMax: 32,
  /** Requests of one session of our initiator in flight: twice the deepest window of the targets known (Linux: 512). */
  initiatorTasksMax: 1024,
  /**
   * Short cuts (docs/short-cut.md). Data of one answer, bytes: what qemu-img reads at a time, and an initiator that takes
   * 84 KB a second still gets it within shortCutSendMs. Larger ones are forwarded.
   */
  shortCutBytesMax: 2 * MiB,
  /**
   * Bytes sent and not acknowledged that go along with a connection when it is lent or given back: several delayed
   * acknowledgements' worth (two segments each), and half of a message between members.
   */
  shortCutTailBytesMax: 32 * KiB,
  /** Until what was sent before has left, the answer is forwarded instead, milliseconds: 6 MiB at 1 Gbit/s. */
  shortCutWaitMs: 50,
  /** A borrower that has not read and sent everything after so long, milliseconds, resets the connection (as stalledLooksMax). */
  shortCutSendMs: 25_000,
  /** And a lender that has not heard of it after so long resets it as well, milliseconds. */
  shortCutLeaseMs: 30_000,
  /** For a member to say that it has a message of these, milliseconds: it does so at once. */
  shortCutMessageMs: 5_000,
  /** A member that could not send an answer is not asked again for so long, milliseconds. */
  shortCutRestMs: 10_000,
  /**
   * A lent connection and the headers of its answer on their way between threads, bytes: a full tail beside the 256 PDUs of
   * 2 MiB at 8 KiB each. Answers of more are forwarded.
   */
  lentAnswerBytesMax: 48 * KiB,
  /** Addresses of clients and members of which a member remembers whether they are neighbours: 200 KiB. */
  neighboursMax: 1024,
  /** Data that a borrower has read and not sent yet, bytes: 32 of 2 MiB, of as many connections. */
  shortCutBufferBytesMax: 64 * MiB,
  /** `plimsoll bench`: sessions, half of a member's connectionsInLoginMax; commands of each, half of initiatorTasksMax. */
  benchConnectionsMax: 32,
  benchDepthMax: 512,
  /** Commands that wait in one session of our initiator for the target's window; one more is not sent. */
  initiatorQueueMax: 4096,
  /** Text that our initiator takes as one answer, bytes and pairs: SendTargets of 1024 volumes with 8 portals each. */
  textResponseBytesMax: 1 * MiB,
  textResponsePairsMax: 16 * KiB,
  /** Portals of one member: two IP families on eight network interfaces. */
  portalsMax: 16,
  /** Disks of one member: a full shelf has 60. Placement ids of the whole group end at 255 anyway. */
  disksMax: 64,
  /**
   * Resident memory of a member, bytes: 128 MiB of Deno with two isolates (each further worker adds some 20), the data
   * buffers (256 MiB, and 64 MiB of the sessions' own), 256 connections with a segment being received and 1 MiB unsent
   * each (320 MiB), 64 MiB of tables. tests/interop/flood_interop.ts and slow_readers_interop.ts measure.
   */
  residentBytesMax: 832 * MiB,
  /**
   * Of the page cache that a member's disks map so that reads leave without a copy, bytes. They come on top of
   * residentBytesMax where resident memory is counted, but are given up like any page cache.
   */
  mappedDiskBytesMax: 4096 * MiB,
  /**
   * Data buffers for operations that other members forward here, bytes, for each of two hop classes: 32 transfers of
   * 1 MiB. Nobody else takes of them, so that members that forward to each other cannot hold each other up.
   */
  forwardBufferBytesMax: 32 * MiB,
  /** Operations of one hop class on their way to one home: its command window. More wait here, in their clients' buffers. */
  forwardCommandsMax: 128,
  /** Client buffers that one home may keep from the others, bytes: half of them while it serves, an eighth while it is away. */
  forwardHeldBytesMax: 128 * MiB,
  forwardAwayBytesMax: 32 * MiB,
  /** How long an operation waits for a home that is away before it is answered "busy", milliseconds: a restart takes less. */
  forwardHoldMs: 5_000,
  /** How long a home may be away before its pages are NOT READY, milliseconds (DESIGN.md, `grace`). */
  forwardGraceMs: 60_000,
  /** Pause between two attempts to reach a home, milliseconds, at first and at last. */
  forwardRetryMsMin: 50,
  /** How often a path of a proxy at another portal than its own looks whether that is there again, milliseconds. */
  pathReturnMs: 5_000,
  forwardRetryMsMax: 1_000,
  /** A TCP connection to another member, milliseconds; silence of one before it is pinged, and for the answer. */
  forwardConnectMsMax: 2_000,
  forwardSilenceMs: 2_000,
  forwardPingMs: 3_000,
  /**
   * What an initiator sends while its session moves to another member, bytes: 128 commands with the 64 KiB of data that each may
   * bring unasked. And all that a member keeps of sessions on their way to it.
   */
  moveHeldBytesMax: 8 * MiB + 128 * KiB,
  moveBufferBytesMax: 32 * MiB,
  /** For the commands in flight to be answered before a session moves, milliseconds; it stays when it takes longer. */
  moveQuietMs: 2_000,
  /** From the first of its bytes to the session itself, milliseconds: they follow each other. */
  moveArriveMs: 10_000,
  /** For a member to take over a session, or to steer its packets, milliseconds; nobody is served meanwhile. */
  moveMessageMs: 5_000,
  /** How long packets of a connection that has ended are still passed on, milliseconds: those of its end. */
  moveLingerMs: 5_000,
  /** A connection that was told to be over is not taken up for so long, milliseconds: longer than a message is on its way. */
  moveForgetMs: 60_000,
  /** For a member's process to be started anew while its moved connections stay, milliseconds: a stop of 15 s and a slow start. */
  restartKeepMs: 60_000,
  /** Questions about them to other members at a time: few beside messagesMax. */
  restartAsksMax: 64,
  /** A message of one member to another, bytes: a load report of 256 sessions and as many clients of the past. */
  messageBytesMax: 64 * KiB,
  /** Buffers for messages that come, bytes: one of the largest of each other member. */
  messageBufferBytesMax: 2 * MiB,
  /** Messages to one member that are not answered yet: one report and an intent for each move and login under way. */
  messagesMax: 256,
  /**
   * Sessions that a host is to make: for a volume's slice on one member, for a volume, in all, and those of all hosts of a
   * group: half of what 32 members take. Two a slice keep a thread each busy; six a volume are three slices' worth.
   */
  planSessionsPerSlice: 2,
  planSessionsPerVolume: 6,
  planSessionsPerHost: 64,
  planSessionsPerGroup: 4096,
  /** Changes of a route table that a member remembers for those who follow it: 64 KiB on the wire, as a chunk of the table. */
  routeChangesMax: 16 * KiB,
  /** Epochs whose changes since are known: proxies follow within seconds. */
  routeEpochsMax: 256,
  /** Pages of one step of a page move, and of one transaction that gives pages another home: 64 KiB of routes hold 65,536. */
  movePagesMax: 1024,
  /** Pages with data of one such transaction: 32 MiB of 4 MiB pages, whose writes are held for its last moments. */
  moveDataPagesMax: 8,
  /** Pages that are on their way to one member: what each of the others may send it in one transaction. */
  incomingPagesMax: 32 * 1024,
  /** Bytes that a mover reads and sends at a time, through one buffer. */
  moveCopyBytes: 256 * KiB,
  /** Bytes of pages that a member moves in a second, and while it serves clients: a quarter of one 1 Gbit/s link. */
  moveBytesPerSecond: 256 * MiB,
  moveBusyBytesPerSecond: 32 * MiB,
  /**
   * Milliseconds between two looks whether pages are to move; how long disks must have had unlike shares before any do,
   * so that a member that is only starting moves none; and the longest pause after moves that failed.
   */
  moveLookMs: 1_000,
  moveAfterMs: 20_000,
  moveRetryMsMax: 30_000,
  /** Rounds of copying what was written meanwhile, before writes are held. Each halves it, or more would not help either. */
  moveRoundsMax: 6,
  /** Pages whose use a member remembers, and as many that have moved there lately: 16 GiB of 4 MiB pages, half a MiB of memory. */
  heatPagesMax: 4096,
  /** From one swap of hot pages for cold ones to the next of the same member, milliseconds: rates have half followed by then. */
  swapRestMs: 120_000,
  /** How long a member that has agreed to a swap waits for the pages, milliseconds: 8 pages of 64 MiB take 16 s. */
  swapTimeMs: 120_000,
  /** Last changes of routes that a volume's record tells: who is not further behind reads those chunks only. */
  routeChangesTold: 32,
  /** Clients whose use of volumes is remembered after they have gone: as many hosts as a large site has, with 8 volumes each. */
  clientHistoriesMax: 1024,
  /** Clients in one load report: all sessions of a member and as many of the past; 56 bytes each are half a message. */
  reportClientsMax: 512,
  /** Logins and moves of a group that are under way, and those of the last minute. */
  intentsMax: 1024,
  /** How long a member may be told to expect an initiator, milliseconds: a slow logout and a slow login. */
  intentTimeMsMax: 300_000,
  /** EXTENDED COPY: descriptors of one list, and results kept for RECEIVE COPY STATUS of one nexus. */
  copyTargetDescriptorsMax: 8,
  copySegmentDescriptorsMax: 16,
  copyResultsMax: 8,
  /** One command of the host agent (dmsetup, iscsiadm), milliseconds: a login that fails takes 5 to 15 s. */
  hostProgramMsMax: 30_000,
  /** What it may print, bytes: a line of 256 bytes for each of 4,096 mapped devices. */
  hostOutputBytesMax: 1 * MiB,
  /** From a login of the kernel to the disk, milliseconds. A scan of one unit takes 0.1 s, of a busy machine 2. */
  hostDiskMsMax: 15_000,
  /** Troubles of one device that its agent has told of and does not repeat: a few for each of 32 members. */
  agentTroublesMax: 128,
});
