// Follow an organization live, through cuts and restarts: node live.mjs ws://127.0.0.1:8080/ws ACCESS_TOKEN
const [url, token] = process.argv.slice(2);
let cursor = null;
let attempt = 0;

function connect() {
  let pause = 500 + Math.random() * Math.min(14_500, 500 * 2 ** attempt++);
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send(JSON.stringify({ type: "hello", token, cursor, client: "docs-js/1" }));
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    attempt = 0;
    if (frame.type === "resync" || (frame.type === "welcome" && !frame.resumed)) {
      cursor = { epoch: frame.epoch, seq: frame.seq };
      console.log("snapshot", frame.reason); // read what you show over /rest/v1 now
    } else if ((frame.type === "event" || frame.type === "pos") && frame.seq > cursor.seq) {
      cursor.seq = frame.seq; // before the event is handed on
      if (frame.type === "event") console.log(frame.seq, frame.event.type, frame.event.entity_id);
    } else if (frame.type === "bye") {
      pause = frame.retry_in * 1000;
    }
  };
  socket.onclose = ({ code }) => {
    if (code !== 4401 && code !== 4403) return setTimeout(connect, pause);
    console.error(`The hub refused this token (${code})`);
    process.exit(1);
  };
}

connect();
