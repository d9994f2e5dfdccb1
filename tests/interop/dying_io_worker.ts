// The I/O worker of dying_target.ts: the real one, with the fault.

import "./planted_fault.ts";
import "../../cmd/io_worker.ts";
