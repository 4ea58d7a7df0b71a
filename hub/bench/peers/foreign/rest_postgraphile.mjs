// The same list from PostGraphile: GraphQL over the same tables, one POST of a query a list.
import { createServer } from "node:http";
import { postgraphile } from "postgraphile";
import { makePgService } from "postgraphile/adaptors/pg";
import { grafserv } from "postgraphile/grafserv/node";
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";

const options = JSON.parse(process.argv.at(-1));
const server = createServer();
const app = postgraphile({
  extends: [PostGraphileAmberPreset],
  pgServices: [makePgService({ connectionString: options.dsn, schemas: ["public"], poolConfig: { max: 16 } })],
  grafserv: { graphqlPath: "/graphql", graphiql: false, graphiqlPath: "/graphiql" },
  grafast: { explain: false },
});
const serving = app.createServ(grafserv);
server.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
await serving.addTo(server);
// the others answer GET / when they are ready
const [graphql] = server.listeners("request");
server.removeAllListeners("request");
server.on("request", (request, response) => (request.url === "/" ? response.end("ok") : graphql(request, response)));
await serving.ready?.();
server.listen(options.port, "127.0.0.1", 1024);
