// What a logical unit keeps of one nexus.

import type { Nexus } from "../session/nexus.ts";
import { UnitAttentions } from "./unit_attention.ts";

export class NexusState {
  readonly nexus: Nexus;
  readonly attentions = new UnitAttentions();

  constructor(nexus: Nexus) {
    this.nexus = nexus;
  }
}
