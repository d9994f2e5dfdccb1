// The rest of the soak's load: sessions and volumes that come and go, reservations, slow readers, strangers, the oracle.

import { LoginError } from "../../lib/session/initiator/mod.ts";
import { loginKeys, loginRequest, loginText, split } from "../interop/plain_initiator.ts";
import { SlowReader } from "../interop/slow_reader.ts";
import { blockBytes, Lun, pattern } from "../roles/scsi.ts";
import { soak } from "../roles/soak.ts";
import type { Scene } from "./scene.ts";

const MiB = 1024 * 1024;
const pageBlocks = 4 * MiB / blockBytes;

/** Volumes made, grown, unmapped, read back and deleted, with a session open or not. */
export async function volumes(scene: Scene, part: number): Promise<void> {
  const dice = scene.dice(part);
  for (let n = 0; !scene.over; n++) {
    const name = `came${part}-${n}`;
    const size = (1 + dice.below(4)) * 4 * MiB;
    await scene.ends(`creation of ${name}`, scene.admin.createVolume({ name, sizeBytes: size }));
    const client = await scene.login(name, `guest${part}`);
    const lun = new Lun(client);
    await lun.attentions();
    const data = pattern(2048, n);
    const lba = dice.below(size / blockBytes - 2048);
    const wrote = await lun.write(lba, data);
    scene.expect(wrote === "good", `a write to ${name} ended with ${wrote}`);
    await scene.ends(`growth of ${name}`, scene.admin.resizeVolume(name, size + 8 * MiB));
    const news = await lun.attentions();
    scene.expect(
      news.includes("6/2a/09"),
      `${name} grew and its session heard ${news.join(", ") || "nothing"}`,
    );
    scene.expect(await lun.capacity() === size / blockBytes + 8 * MiB / blockBytes, `${name} has not grown`);
    const back = await lun.read(lba, 2048);
    scene.expect(typeof back !== "string" && equal(back, data), `${name} gave other bytes back`);
    const fresh = await lun.read(size / blockBytes, 256);
    scene.expect(
      typeof fresh !== "string" && fresh.every((b) => b === 0),
      `what ${name} grew by is not zero`,
    );
    if (dice.below(2) === 0) {
      const unmapped = await lun.unmap(0, size / blockBytes);
      scene.expect(unmapped === "good", `UNMAP of ${name} ended with ${unmapped}`);
      const gone = await lun.read(lba, 2048);
      scene.expect(
        typeof gone !== "string" && gone.every((b) => b === 0),
        `what was unmapped of ${name} is not zero`,
      );
    }
    const stays = dice.below(2) === 0; // the deletion ends its session
    if (!stays) await scene.ends("logout", client.logout());
    await scene.ends(`deletion of ${name}`, scene.admin.deleteVolume(name));
    await scene.ends(`the end of ${name}'s session`, client.closed);
    scene.count("volumes made and deleted");
    await scene.pause(dice.below(500));
  }
}

/** Two hosts that register, reserve, preempt and clear. */
export async function reservations(scene: Scene, volume: string): Promise<void> {
  const dice = scene.dice(2);
  const expect = async (what: string, answer: Promise<string>, wanted: string) => {
    const text = await answer;
    scene.expect(text === wanted, `${what} ended with ${text}, not ${wanted}`);
  };
  const block = new Uint8Array(blockBytes);
  while (!scene.over) {
    const [first, second] = [
      new Lun(await scene.login(volume, "reserver-one")),
      new Lun(await scene.login(volume, "reserver-two")),
    ];
    await first.attentions();
    await second.attentions();
    for (let round = 0; round < 10 && !scene.over; round++) {
      const type = dice.one([1, 3, 5, 6, 7, 8]); // SPC-4 §6.13.3.4
      await expect("REGISTER", first.reserveOut(6, 0, 11, 0, dice.below(2) === 0), "good");
      await expect("RESERVE", first.reserveOut(1, 11, 0, type), "good");
      await expect(`a write beside reservation ${type}`, second.write(0, block), "conflict");
      await expect("the holder's write", first.write(0, block), "good");
      await expect("REGISTER", second.reserveOut(6, 0, 22), "good");
      if (dice.below(2) === 0) {
        await expect("PREEMPT", second.reserveOut(4, 22, 11, type), "good");
        const told = await first.attentions();
        // The one preempted is registered no more: REGISTRATIONS PREEMPTED (or RESERVATIONS PREEMPTED).
        scene.expect(
          told.some((t) => t.startsWith("6/2a/")),
          `the host preempted heard ${told.join(", ") || "nothing"}`,
        );
        await expect("CLEAR", second.reserveOut(3, 22), "good");
      } else {
        await expect("RELEASE", first.reserveOut(2, 11, 0, type), "good");
        await second.attentions();
        await expect("CLEAR", first.reserveOut(3, 11), "good");
      }
      await first.attentions();
      await second.attentions();
      const { keys, type: left } = await first.reservation();
      scene.expect(keys.length === 0 && left === null, `reservations are left: ${keys}, ${left}`);
      scene.count("reservations");
      await scene.pause(50 + dice.below(200));
    }
    for (const { client } of [first, second]) await scene.ends("logout", client.logout());
  }
}

/** Logins of every kind: that work, look around, are refused, or stop half-way. */
export async function logins(scene: Scene, volume: string): Promise<void> {
  const dice = scene.dice(3);
  for (let n = 0; !scene.over; n++) {
    const kind = dice.below(6);
    if (kind < 2) {
      const client = await scene.login(volume, "visitor", {
        headerDigest: dice.below(2) === 0,
        dataDigest: dice.below(2) === 0,
      });
      await new Lun(client).attentions();
      const pong = await scene.ends("ping", client.ping(new Uint8Array([1, 2, 3])));
      scene.expect(pong !== null && equal(pong, new Uint8Array([1, 2, 3])), "a ping came back otherwise");
      await scene.ends("logout", client.logout());
    } else if (kind === 2) {
      const client = await scene.login(null, "looker");
      const targets = await scene.ends("SendTargets", client.sendTargets());
      scene.expect(
        targets.some(({ name }) => name.endsWith(`:${volume}`)),
        `SendTargets does not name ${volume}`,
      );
      await scene.ends("logout", client.logout());
    } else if (kind === 3) {
      const refused = await scene.login("nosuch", "stranger").then(() => null, (error) => error);
      scene.expect(
        refused instanceof LoginError && refused.status === 0x0203,
        `a login to nowhere: ${refused}`,
      );
      scene.count("logins refused");
    } else await half(scene, volume, dice.below(3));
    await scene.pause(dice.below(100));
  }
}

/** A connection that says nothing, the half of a login, or nonsense, and goes. */
async function half(scene: Scene, volume: string, kind: number): Promise<void> {
  const connection = await Deno.connect(split(scene.target.portals[0]));
  const request = loginRequest(loginText(loginKeys(scene.target.iqn(volume))));
  if (kind === 1) await connection.write(request.subarray(0, 60));
  if (kind === 2) await connection.write(crypto.getRandomValues(new Uint8Array(500)));
  await scene.pause(20);
  connection.close();
  scene.count("connections given up");
}

/** A session that asks for reads of 256 KiB and takes them slowly: all of them, or some before it cuts. */
export async function slowReader(scene: Scene, volume: string, part: number): Promise<void> {
  const dice = scene.dice(part);
  while (!scene.over) {
    const reader = await scene.ends(
      "login of a slow reader",
      SlowReader.login(scene.target.portals[0], scene.target.iqn(volume)),
    );
    const depth = await reader.ask(8 + dice.below(120), 512, dice.below(4096));
    const cut = dice.below(3) === 0;
    for (let i = 0; i < 20 && !scene.over; i++) {
      await scene.ends("a slow reader's answer", reader.take(65_536));
      await scene.pause(dice.below(400));
    }
    if (!cut) {
      while (reader.outstanding > 0) await scene.ends("a slow reader's answer", reader.take(262_144));
      scene.answered += depth;
    }
    reader.close();
    scene.count(cut ? "slow readers that cut" : "slow readers");
  }
}

/** Rounds of the oracle (tests/roles/soak.ts), each on a new volume. */
export async function oracle(scene: Scene): Promise<void> {
  for (let round = 0; !scene.over; round++) {
    const name = `oracle${round}`;
    const sizeBytes = 32 * MiB;
    await scene.ends(`creation of ${name}`, scene.admin.createVolume({ name, sizeBytes }));
    const report = await soak({
      seed: scene.seed + round,
      sessions: 4,
      depth: 5,
      commands: 20_000,
      over: () => scene.over,
      volumeBlocks: sizeBytes / blockBytes,
      pageBlocks,
      transferBlocksMax: 4096,
      abortChance: 15,
      resetChance: 2,
      cutChance: 3,
      tornMayShow: true,
      connect: (i) =>
        scene.login(name, `oracle${i}`, {
          isid: 0x80_0000_000200 + i,
          headerDigest: i % 2 === 1,
          dataDigest: i % 3 === 1,
          ...(i === 2 ? { wishes: { initialR2t: true, immediateData: false } } : {}),
        }),
    });
    for (const text of report.problems) scene.problem(`round ${round}: ${text}`);
    for (const what of ["abort", "reset", "cut"]) scene.count(`${what}s`, report.counts[what] ?? 0);
    scene.count("blocks torn between writes in flight", report.counts["torn"] ?? 0);
    scene.count("oracle commands", report.counts["good"] ?? 0);
    await scene.ends(`deletion of ${name}`, scene.admin.deleteVolume(name));
    scene.count("oracle rounds");
  }
}

/** An operator who looks. */
export async function operator(scene: Scene): Promise<void> {
  while (!scene.over) {
    await scene.ends("status", scene.admin.status());
    await scene.ends("sessions", scene.admin.sessions());
    await scene.pause(1000);
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
