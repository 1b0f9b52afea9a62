// Starts fauxqs: `node fauxqs.mjs NODE_MODULES PORT`. Its own command listens on every interface of the machine.
import { pathToFileURL } from "node:url";

const [modules, port] = process.argv.slice(2);
const { buildApp } = await import(pathToFileURL(`${modules}/fauxqs/dist/app.js`).href);
await buildApp({ logger: false }).listen({ host: "127.0.0.1", port: Number(port) });
