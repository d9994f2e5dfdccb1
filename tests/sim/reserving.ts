// Reservation commands of the simulated initiators, one at a time for each volume.

import type { InitiatorClient } from "../../lib/session/initiator/client.ts";
import type { Step } from "../device/reservation_model.ts";
import type { Seat } from "./seat.ts";

const be32 = (n: number) => [n >>> 24 & 0xff, n >>> 16 & 0xff, n >>> 8 & 0xff, n & 0xff];
const be64 = (n: number) => [0, 0, 0, 0, ...be32(n)];

const types = [1, 3, 5, 6, 7, 8];
/** Service actions of PERSISTENT RESERVE OUT. */
const action = {
  register: 0,
  reserve: 1,
  release: 2,
  clear: 3,
  preempt: 4,
  preemptAndAbort: 5,
  registerAndIgnore: 6,
};

/** Some reservation command, or a look at what is reserved. */
export async function reserveSomehow(seat: Seat, client: InitiatorClient): Promise<void> {
  const { random, volume: { reservations } } = seat;
  await reservations.alone(async () => {
    if (client.session.state !== "fullFeature") return;
    if (random.chance(0.15)) return await look(seat, client);
    if (random.chance(0.15)) return await reserve(seat, client, random.chance(0.5));
    await persistentReserve(seat, client, someStep(seat));
  });
}

/** Takes every reservation back; false: it could not be seen that it is so. */
export async function openUp(seat: Seat, client: InitiatorClient): Promise<boolean> {
  const { reservations } = seat.volume;
  if (!reservations.quiet) await seat.reset(client); // the RESERVE of another
  return await reservations.alone(async () => {
    for (let i = 0; i < 20 && client.session.state === "fullFeature"; i++) {
      if (reservations.quiet) return true;
      await seat.run(client, { cdb: [0, 0, 0, 0, 0, 0], access: "always", good: () => {} });
      if (seat.volume.reservations.keyOf(seat.port) === 0 || i % 2 === 0) {
        await persistentReserve(seat, client, step(seat, action.registerAndIgnore, 0, 0, 1));
      }
      await persistentReserve(
        seat,
        client,
        step(seat, action.clear, 0, reservations.keyOf(seat.port) ?? 1, 0),
      );
      await reserve(seat, client, false);
    }
    return false;
  });
}

function someStep(seat: Seat): Step {
  const { random, port, volume: { reservations } } = seat;
  const own = reservations.keyOf(port) ?? 0;
  const key = random.chance(0.95) ? own : 9;
  if (own === 0 && random.chance(0.8)) {
    const kind = random.chance(0.5) ? action.register : action.registerAndIgnore;
    return step(seat, kind, 0, 0, 1 + random.below(3), random.chance(0.5));
  }
  const kind = random.pick([0, 1, 1, 1, 2, 2, 3, 4, 5, 6]);
  if (kind === action.register || kind === action.registerAndIgnore) {
    return step(seat, kind, 0, key, random.below(4), random.chance(0.5));
  }
  return step(seat, kind, random.pick(types), key, random.below(4));
}

function step(seat: Seat, kind: number, type: number, key: number, actionKey: number, persist = false): Step {
  return {
    from: seat.port,
    action: kind,
    scope: 0,
    type,
    key,
    actionKey,
    persist,
    allPorts: false,
    also: null,
    to: 0,
    unregister: false,
  };
}

async function persistentReserve(seat: Seat, client: InitiatorClient, wanted: Step): Promise<void> {
  const { reservations } = seat.volume;
  const list = new Uint8Array([
    ...be64(wanted.key),
    ...be64(wanted.actionKey),
    0,
    0,
    0,
    0,
    wanted.persist ? 1 : 0,
    0,
    0,
    0,
  ]);
  const answered = reservations.sent(wanted);
  const text = await seat.run(client, {
    cdb: [0x5f, wanted.action, wanted.type, 0, 0, ...be32(list.length), 0],
    access: "always",
    options: { dataOut: list },
    good: () => {},
    abortable: false,
    decidesItself: true,
  });
  told(seat, text, answered);
}

async function reserve(seat: Seat, client: InitiatorClient, take: boolean): Promise<void> {
  const answered = seat.volume.reservations.sentReserve(seat.port, take);
  const text = await seat.run(client, {
    cdb: [take ? 0x16 : 0x17, 0, 0, 0, 0, 0],
    access: "always",
    good: () => {},
    abortable: false,
    decidesItself: true,
  });
  told(seat, text, answered);
}

function told(seat: Seat, text: string, answered: (verdict: string | null) => string | null): void {
  seat.world.coverage.hit(`reservation ${text}`);
  const unknown = ["lost", "aborted", "status 64", "5/25/00", "2/04/03"].includes(text);
  const problem = text.startsWith("6/") || text === "notSent" || text === "busy"
    ? answered("refused")
    : answered(unknown ? null : text);
  if (problem !== null) seat.problem(problem);
}

/** READ KEYS and READ RESERVATION, which must show a state that there was. */
async function look(seat: Seat, client: InitiatorClient): Promise<void> {
  const { reservations } = seat.volume;
  const passage = reservations.begin();
  const answers: DataView[] = [];
  for (const serviceAction of [0, 1]) {
    const text = await seat.run(client, {
      cdb: [0x5e, serviceAction, 0, 0, 0, 0, 0, 4, 0, 0],
      access: "always",
      options: { dataInMax: 1024 },
      residual: null,
      good: (_text, { data }) => answers.push(new DataView(data.buffer, data.byteOffset, data.length)),
      abortable: false,
      decidesItself: true,
    });
    if (text !== "good") return void reservations.forget(passage);
  }
  const [keysAnswer, heldAnswer] = answers;
  const keys: number[] = [];
  for (let at = 8; at < 8 + keysAnswer!.getUint32(4); at += 8) keys.push(keysAnswer!.getUint32(at + 4));
  const type = heldAnswer!.getUint32(4) === 0 ? 0 : heldAnswer!.getUint8(21) & 0xf;
  const problem = reservations.judge(passage, keys, type);
  if (problem !== null) seat.problem(problem);
}
