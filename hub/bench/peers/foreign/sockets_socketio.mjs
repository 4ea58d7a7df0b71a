// Rooms of socket.io on node behind its Redis adapter. With "publish" before the options it is the other end: a
// writer that emits each line "<room> <frame>" of its standard input.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createAdapter } from "@socket.io/redis-adapter";
import { Emitter } from "@socket.io/redis-emitter";
import Redis from "ioredis";
import { Server } from "socket.io";

const options = JSON.parse(process.argv.at(-1));

if (process.argv.at(-2) === "publish") {
  const emitter = new Emitter(new Redis(options.redis), { key: options.prefix });
  for await (const line of createInterface({ input: process.stdin })) {
    const at = line.indexOf(" ");
    emitter.to(line.slice(0, at)).emit("event", JSON.parse(line.slice(at + 1)));
  }
  process.exit(0);
}

const publisher = new Redis(options.redis);
const server = createServer((_, response) => response.end("ok"));
const io = new Server(server, {
  adapter: createAdapter(publisher, publisher.duplicate(), { key: options.prefix }),
  perMessageDeflate: false,
});
io.on("connection", (socket) =>
  socket.on("join", (org) => {
    socket.join(org);
    socket.emit("welcome");
  }),
);
server.listen(options.port, "127.0.0.1", 1024);
