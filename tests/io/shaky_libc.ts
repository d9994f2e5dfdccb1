// A C library whose calls on sockets fail now and then as they may: short, EAGAIN, EINTR, ENOBUFS. None of it may show.

import { type Libc, libc } from "../../lib/io/native/libc.ts";

export function shakySocketLibc(): Libc {
  const c = libc()!;
  let turn = 0;
  let errno = 0;
  const words = (pointer: Deno.PointerValue, bytes: number) =>
    new Uint32Array(Deno.UnsafePointerView.getArrayBuffer(pointer!, bytes));
  /** 0: go on; otherwise the error to answer. */
  const fate = (errors: readonly number[]) => errno = errors[++turn % errors.length]!;
  return {
    ...c,
    readv(fd, vectors, count) {
      if (fate([0, 11, 0, 4, 0, 0]) !== 0) return -1;
      const length = words(vectors, 16);
      const whole = length[2]!;
      if (turn % 7 === 0) length[2] = 13;
      const result = c.readv(fd, vectors, count);
      length[2] = whole;
      return result;
    },
    sendmsg(fd, message, flags) {
      if (fate([0, 11, 0, 4, 0, 105, 0]) !== 0) return -1;
      const head = words(message, 56);
      if (turn % 3 === 0) {
        // A short send: part of the first range only.
        const first = words(Deno.UnsafePointer.create(BigInt(head[4]!) + (BigInt(head[5]!) << 32n)), 16);
        first[2] = Math.min(first[2]!, 1 + turn % 5000);
        head[6] = 1;
      }
      return c.sendmsg(fd, message, flags);
    },
    epoll_wait(...parameters) {
      errno = 0; // its own counts from now on
      return c.epoll_wait(...parameters);
    },
    connect(...parameters) {
      errno = 0;
      return c.connect(...parameters);
    },
    errno: () => errno || c.errno(),
  };
}
