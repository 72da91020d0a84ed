// A consumer with Node's `ws`. Reads its orders as JSON from the command line, writes what it saw as one JSON line.
//
//   url, ca, cert, key   how to connect; the last three are files
//   protocols            sub-protocols to offer
//   take                 how many events to receive before going on
//   send                 text messages to send after that
//   ping                 whether to send a ping after that, and to wait for its pong
//   wait                 whether to wait for the broker to close; otherwise this side closes with 1000

import { readFileSync } from "node:fs";
import WebSocket from "ws";

const orders = JSON.parse(process.argv[2]);
const seen = { messages: [], binary: 0, pongs: [], protocol: null, extensions: null, code: null, reason: null };

const socket = new WebSocket(orders.url, orders.protocols, {
  ca: readFileSync(orders.ca),
  cert: orders.cert && readFileSync(orders.cert),
  key: orders.key && readFileSync(orders.key),
});

function finish(code) {
  process.stdout.write(JSON.stringify(seen) + "\n", () => process.exit(code));
}

function act() {
  for (const text of orders.send ?? []) socket.send(text);
  if (orders.ping) socket.ping("are you there?");
  else if (!orders.wait) socket.close(1000, "done");
}

socket.on("open", () => {
  seen.protocol = socket.protocol;
  seen.extensions = socket.extensions;
  if (!orders.take) act();
});

socket.on("message", (data, isBinary) => {
  seen.messages.push(data.toString());
  seen.binary += isBinary ? 1 : 0;
  if (seen.messages.length === orders.take) act();
});

socket.on("pong", (data) => {
  seen.pongs.push(data.toString());
  if (!orders.wait) socket.close(1000, "done");
});

socket.on("unexpected-response", (_, response) => {
  seen.status = response.statusCode;
  seen.contentType = response.headers["content-type"];
  seen.text = "";
  response.setEncoding("utf8");
  response.on("data", (text) => (seen.text += text));
  response.on("end", () => finish(0));
});

socket.on("error", (error) => {
  seen.error = error.message;
  finish(1);
});

socket.on("close", (code, reason) => {
  seen.code = code;
  seen.reason = reason.toString();
  finish(0);
});
