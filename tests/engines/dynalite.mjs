// Starts dynalite in memory: `node dynalite.mjs NODE_MODULES PORT`.
//
// dynalite deviates: it knows no UpdateTimeToLive, so `dynein bootstrap` refuses it. Here that call is answered, and what
// it set is described; nothing expires. Everything else is dynalite's own.
import { createRequire } from "node:module";

const [modules, port] = process.argv.slice(2);
const dynalite = createRequire(import.meta.url)(`${modules}/dynalite`);
const server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
const [answer] = server.listeners("request");
const attributes = new Map();

function timeToLive(operation, { TableName, TimeToLiveSpecification }) {
  if (operation === "UpdateTimeToLive") {
    attributes.set(TableName, TimeToLiveSpecification.AttributeName);
    return { TimeToLiveSpecification };
  }
  const AttributeName = attributes.get(TableName);
  return {
    TimeToLiveDescription: AttributeName
      ? { TimeToLiveStatus: "ENABLED", AttributeName }
      : { TimeToLiveStatus: "DISABLED" },
  };
}

server.removeAllListeners("request");
server.on("request", (request, response) => {
  const operation = String(request.headers["x-amz-target"]).split(".").at(-1);
  if (!["UpdateTimeToLive", "DescribeTimeToLive"].includes(operation)) {
    answer(request, response);
    return;
  }
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (chunk) => (body += chunk));
  request.on("end", () => {
    response.setHeader("content-type", "application/x-amz-json-1.0");
    response.end(JSON.stringify(timeToLive(operation, JSON.parse(body))));
  });
});
server.listen(Number(port), "127.0.0.1");
