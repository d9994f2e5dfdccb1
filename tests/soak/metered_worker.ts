// The data-plane worker of metered_target.ts: the real one, with the meter.

import "./meter.ts";
import "../../cmd/target_worker.ts";
