// A producer with Node's own HTTPS client: sends several requests over one connection, chunked or with a length.
// Reads its orders as JSON from the command line, writes the answers as one JSON line.
//
//   port, ca, cert, key   how to connect; the last three are files
//   requests              [{path, headers, body, chunked}]

import { readFileSync } from "node:fs";
import https from "node:https";

const orders = JSON.parse(process.argv[2]);
const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
const sockets = new Set();

function send({ path, headers, body, chunked }) {
  return new Promise((resolve, reject) => {
    const request = https.request({
      agent,
      host: "localhost",
      port: orders.port,
      method: "POST",
      path,
      headers: chunked ? headers : { ...headers, "Content-Length": Buffer.byteLength(body) },
      ca: readFileSync(orders.ca),
      cert: readFileSync(orders.cert),
      key: readFileSync(orders.key),
    });
    request.on("error", reject);
    request.on("socket", (socket) => sockets.add(socket));
    request.on("response", (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part) => (text += part));
      response.on("end", () => resolve({ status: response.statusCode, text }));
    });
    if (chunked) {
      const middle = body.length >> 1;
      request.write(body.slice(0, middle));
      request.write(body.slice(middle));
      request.end();
    } else {
      request.end(body);
    }
  });
}

const answers = [];
for (const request of orders.requests) answers.push(await send(request));
agent.destroy();
process.stdout.write(JSON.stringify({ answers, connections: sockets.size }) + "\n");
