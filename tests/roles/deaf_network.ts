// A network whose connections can stop reading: what is sent to them piles up in the kernel, as with a host that hangs.

import { Buffer } from "node:buffer";
import * as net from "node:net";
import type { Listener, Network, SendRelease, SocketAddress, Stream } from "../../lib/base/network.ts";
import type { StreamHandler } from "../../lib/base/network.ts";

export class DeafNetwork implements Network {
  readonly #sockets: net.Socket[] = [];

  listen(): Promise<Listener> {
    return Promise.reject(new Error("for initiators only"));
  }

  async connect(
    address: SocketAddress,
    _timeoutMs: number,
    handler: (stream: Stream) => StreamHandler,
  ): Promise<Stream> {
    const socket = net.connect({ host: address.hostname, port: address.port, noDelay: true });
    await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    this.#sockets.push(socket);
    const stream: Stream = {
      local: address,
      remote: address,
      pendingBytes: 0,
      send(buffer: Uint8Array, start: number, length: number, release: SendRelease | null) {
        socket.write(Buffer.from(buffer.slice(start, start + length)));
        queueMicrotask(() => release?.released());
      },
      end: () => void socket.end(),
      abort: () => void socket.destroy(),
    };
    const machine = handler(stream);
    socket.on("data", (data) => {
      const bytes = new Uint8Array(data);
      machine.received(bytes, new DataView(bytes.buffer), 0, bytes.length);
    });
    socket.on("error", () => {});
    socket.once("close", () => machine.closed("closed by peer"));
    return stream;
  }

  /** Nothing is read from now on. */
  deafen(): void {
    for (const socket of this.#sockets) socket.pause();
  }

  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
