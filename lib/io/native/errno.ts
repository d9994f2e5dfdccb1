// Numbers of errors that the native engine tells apart, and words for those that reach a message or a log.

export const Errno = Object.freeze({
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  EAGAIN: 11,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOSPC: 28,
  EPIPE: 32,
  ENOSYS: 38,
  EOPNOTSUPP: 95,
  EADDRNOTAVAIL: 99,
  ENOBUFS: 105,
  ENOMEM: 12,
  EINPROGRESS: 115,
});

const words: Readonly<Record<number, string>> = {
  1: "operation not permitted",
  2: "no such file or directory",
  5: "input/output error",
  11: "resource temporarily unavailable",
  12: "out of memory",
  13: "permission denied",
  14: "bad address: memory or a page of a disk that cannot be read",
  16: "device or resource busy",
  17: "already exists",
  22: "invalid argument",
  23: "too many open files in the system",
  24: "too many open files",
  28: "no space left on device",
  32: "broken pipe",
  38: "function not implemented",
  95: "operation not supported",
  97: "address family not supported",
  98: "address already in use",
  99: "address not available on this machine",
  101: "network is unreachable",
  103: "connection aborted",
  104: "connection reset by peer",
  105: "no buffer space available",
  110: "connection timed out",
  111: "connection refused",
  112: "host is down",
  113: "no route to host",
};

/** "connection refused (error 111)". */
export function errnoText(errno: number): string {
  const text = words[errno];
  return text === undefined ? `error ${errno}` : `${text} (error ${errno})`;
}
