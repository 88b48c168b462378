// Makes calls with Node's own gRPC and nothing but a service config.
//
// Reads {target, config, calls: [{method, stream, metadata}]} and writes what came of each call:
// {method, code}. Requests are empty.
"use strict";
const grpc = require("@grpc/grpc-js");

const { target, config, calls } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const client = new grpc.Client(target, grpc.credentials.createInsecure(), {
  "grpc.service_config": JSON.stringify(config),
});
const bytes = (message) => message;
const empty = Buffer.alloc(0);

function call({ method, stream, metadata }) {
  const headers = new grpc.Metadata();
  for (const [key, value] of Object.entries(metadata ?? {})) headers.set(key, value);
  return new Promise((resolve) => {
    const ended = (error) => resolve({ method, code: grpc.status[error ? error.code : 0] });
    if (stream) {
      const answers = client.makeServerStreamRequest(method, bytes, bytes, empty, headers, {});
      answers.on("data", () => {});
      answers.on("error", ended);
      answers.on("end", () => ended(null));
    } else {
      client.makeUnaryRequest(method, bytes, bytes, empty, headers, {}, ended);
    }
  });
}

Promise.all(calls.map(call)).then((results) => {
  process.stdout.write(JSON.stringify(results));
  client.close();
});
