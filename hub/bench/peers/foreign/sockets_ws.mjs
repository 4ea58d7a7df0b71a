// Redis → websockets on node, `ws` and ioredis.
import { createServer } from "node:http";
import Redis from "ioredis";
import { WebSocketServer } from "ws";

const options = JSON.parse(process.argv.at(-1));
const rooms = new Map();
const server = createServer((_, response) => response.end("ok"));
const sockets = new WebSocketServer({ server, path: "/ws", perMessageDeflate: false });

sockets.on("connection", (socket, request) => {
  const org = new URL(request.url, "http://localhost").searchParams.get("org");
  if (!rooms.has(org)) rooms.set(org, new Set());
  rooms.get(org).add(socket);
  socket.on("close", () => rooms.get(org).delete(socket));
  socket.send('{"type":"welcome"}');
});

const redis = new Redis(options.redis);
await redis.psubscribe(`${options.prefix}*`);
redis.on("pmessage", (_, channel, text) => {
  const frame = Buffer.from(text);
  for (const socket of rooms.get(channel.slice(options.prefix.length)) ?? []) socket.send(frame, { binary: false });
});
server.listen(options.port, "127.0.0.1", 1024);
