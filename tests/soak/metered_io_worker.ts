// The I/O worker of metered_target.ts: the real one, with the meter.

import "./meter.ts";
import "../../cmd/io_worker.ts";
