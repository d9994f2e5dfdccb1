// Without this, some order of making, filling, growing, deleting and dying could show one volume's bytes in another, or
// lose what was acknowledged: each part is tested alone elsewhere, here all of them together, by a seed.

import { strict as assert } from "node:assert";
import { type Lun, pattern } from "./scsi.ts";
import { MiB, oneDisk, World } from "./world.ts";

const rounds = 8;
const stepsPerRound = 25;
const chunkBlocks = 256;
const chunksPerMiB = MiB / 512 / chunkBlocks;

/** What a volume must hold: the seed of each chunk's pattern, 0 for zeroes. */
interface Model {
  chunks: number[];
  lun: Lun | null;
}

class Walk {
  readonly models = new Map<string, Model>();
  #state: number;
  #next = 1;

  constructor(readonly world: World, seed: number) {
    this.#state = seed;
  }

  below(n: number): number {
    this.#state = (Math.imul(this.#state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * n);
  }

  async step(): Promise<void> {
    const { control } = this.world.target;
    const dice = this.below(20);
    const name = [...this.models.keys()][this.below(this.models.size)];
    if (name === undefined || (dice === 0 && this.models.size < 4)) {
      const made = `v${this.#next++}`;
      const mebibytes = 1 + this.below(6);
      await control.createVolume({ name: made, sizeBytes: mebibytes * MiB });
      this.models.set(made, { chunks: new Array(mebibytes * chunksPerMiB).fill(0), lun: null });
    } else if (dice === 1) {
      await control.deleteVolume(name);
      this.models.delete(name);
    } else if (dice === 2) {
      const model = this.models.get(name)!;
      const mebibytes = Math.min(7, model.chunks.length / chunksPerMiB + 1);
      await control.resizeVolume(name, mebibytes * MiB);
      while (model.chunks.length < mebibytes * chunksPerMiB) model.chunks.push(0);
      await model.lun?.attentions();
    } else await this.#io(name, dice);
  }

  async #io(name: string, dice: number): Promise<void> {
    const model = this.models.get(name)!;
    model.lun ??= await this.world.login(name);
    const at = this.below(model.chunks.length);
    if (dice < 5) {
      const page = at - at % chunksPerMiB;
      assert.equal(await this.#settled(model.lun, (lun) => lun.unmap(page * chunkBlocks, MiB / 512)), "good");
      model.chunks.fill(0, page, page + chunksPerMiB);
      return;
    }
    const seed = 1 + this.below(250);
    const data = pattern(chunkBlocks, seed);
    assert.equal(await this.#settled(model.lun, (lun) => lun.write(at * chunkBlocks, data)), "good");
    model.chunks[at] = seed;
  }

  /** Threshold warnings are not what this is about. */
  async #settled(lun: Lun, command: (lun: Lun) => Promise<string>): Promise<string> {
    const verdict = await command(lun);
    return verdict === "6/38/07" ? await command(lun) : verdict;
  }

  async check(): Promise<void> {
    const status = await this.world.target.control.status();
    assert.deepEqual(status.volumes.map(({ name }) => name).sort(), [...this.models.keys()].sort());
    assert.deepEqual(status.notices.filter((notice) => !/% full/.test(notice)), []);
    for (const [name, model] of this.models) {
      model.lun = await this.world.login(name);
      assert.equal(await model.lun.capacity(), model.chunks.length * chunkBlocks);
      for (const [at, seed] of model.chunks.entries()) {
        const data = await model.lun.read(at * chunkBlocks, chunkBlocks);
        const expected = seed === 0 ? new Uint8Array(chunkBlocks * 512) : pattern(chunkBlocks, seed);
        assert.deepEqual(data, expected, `volume ${name}, chunk ${at}`);
      }
    }
  }
}

for (const seed of [1, 2, 3]) {
  Deno.test(`whatever is done between deaths, acknowledged data and volumes are as they should be (seed ${seed})`, async () => {
    await using world = await World.start({ tables: oneDisk });
    const walk = new Walk(world, seed);
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < stepsPerRound; i++) await walk.step();
      for (const model of walk.models.values()) model.lun = null;
      if (walk.below(3) === 0) await world.stop();
      else await world.kill();
      await world.start();
      await walk.check();
    }
    assert.deepEqual(world.logged("error", /./), []);
  });
}
