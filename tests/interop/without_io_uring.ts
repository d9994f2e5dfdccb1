// Preloaded into a process that is to run as if io_uring were disabled, as it is in many containers: a seccomp filter
// answers io_uring_setup with EPERM, in all threads and from now on. The engine then falls back by itself.

const c = Deno.dlopen("libc.so.6", {
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  syscall: { parameters: ["i32", "u32", "u32", "buffer"], result: "i32" },
}).symbols;

const ioUringSetup = 425;
const seccomp = Deno.build.arch === "x86_64" ? 317 : 277;
const setModeFilter = 1;
const allThreads = 1; // SECCOMP_FILTER_FLAG_TSYNC
const noNewPrivileges = 38;

/** struct sock_filter: code, jump if true, jump if not, constant. */
const program: readonly (readonly [number, number, number, number])[] = [
  [0x20, 0, 0, 0], // load the number of the call
  [0x15, 0, 1, ioUringSetup],
  [0x06, 0, 0, 0x0005_0001], // SECCOMP_RET_ERRNO, EPERM
  [0x06, 0, 0, 0x7fff_0000], // SECCOMP_RET_ALLOW
];
const filter = new DataView(new ArrayBuffer(8 * program.length));
program.forEach(([code, jumpTrue, jumpFalse, constant], i) => {
  filter.setUint16(8 * i, code, true);
  filter.setUint8(8 * i + 2, jumpTrue);
  filter.setUint8(8 * i + 3, jumpFalse);
  filter.setUint32(8 * i + 4, constant, true);
});
/** struct sock_fprog: length and address. */
const described = new DataView(new ArrayBuffer(16));
described.setUint16(0, program.length, true);
const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(new Uint8Array(filter.buffer)));
described.setBigUint64(8, BigInt(address), true);

const refused = c.prctl(noNewPrivileges, 1n, 0n, 0n, 0n) !== 0 ||
  c.syscall(seccomp, setModeFilter, allThreads, new Uint8Array(described.buffer)) !== 0;
if (refused) throw new Error("Cannot set the filter of system calls.");
