// Redis → Bun's native topics.
import Redis from "ioredis";

const options = JSON.parse(process.argv.at(-1));
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: options.port,
  fetch(request, server) {
    const url = new URL(request.url);
    if (url.pathname !== "/ws") return new Response("ok");
    return server.upgrade(request, { data: { org: url.searchParams.get("org") } })
      ? undefined
      : new Response("no upgrade", { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) {
      socket.subscribe(socket.data.org);
      socket.send('{"type":"welcome"}');
    },
    message() {},
  },
});

const redis = new Redis(options.redis);
await redis.psubscribe(`${options.prefix}*`);
redis.on("pmessage", (_, channel, text) => server.publish(channel.slice(options.prefix.length), text));
