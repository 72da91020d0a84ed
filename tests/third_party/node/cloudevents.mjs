// The CloudEvents SDK of npm writes requests and reads delivered events. Reads its orders as JSON from the command line, writes
// its answer as one JSON line. Payloads are base64 on the way in and out.
//
//   write   [{attributes, text | json | bytes}]: gives for each {binary: {headers, body}, structured: {headers, body}}
//   read    [{headers, body}]: gives for each {attributes, data}, a list of them for a batch

import { CloudEvent, HTTP } from "cloudevents";

const orders = JSON.parse(process.argv[2]);
const toBase64 = (body) => Buffer.from(body).toString("base64");

function event({ attributes, text, json, bytes }) {
  const data = bytes === undefined ? (text ?? json) : new Uint8Array(Buffer.from(bytes, "base64"));
  return new CloudEvent({ ...attributes, data });
}

function written(order) {
  const message = (write) => {
    const { headers, body } = write(event(order));
    return { headers, body: toBase64(body) };
  };
  return { binary: message(HTTP.binary), structured: message(HTTP.structured) };
}

function found(event) {
  const { data, data_base64, ...attributes } = event.toJSON();
  return { attributes, data: data_base64 === undefined ? data : { base64: data_base64 } };
}

function read({ headers, body }) {
  const events = HTTP.toEvent({ headers, body: Buffer.from(body, "base64").toString("utf8") });
  return Array.isArray(events) ? events.map(found) : found(events);
}

const answer = orders.write ? orders.write.map(written) : orders.read.map(read);
process.stdout.write(JSON.stringify(answer) + "\n");
