// The data-plane worker of dying_target.ts: the real one, with the fault.

import "./planted_fault.ts";
import "../../cmd/target_worker.ts";
