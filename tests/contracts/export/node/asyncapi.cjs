// Judges AsyncAPI documents with AsyncAPI's own parser, and events by the schemas in them.
//
// Reads [{document, events: [{message, payload}]}] and writes [{problems, invalid}]: what the parser
// says of each document, and what the payload's schema says of each event that it refuses.
"use strict";
const { Parser } = require("@asyncapi/parser");
const Ajv = require("ajv");
const formats = require("ajv-formats");

const given = JSON.parse(require("node:fs").readFileSync(0, "utf8"));

function refused({ document, events }) {
  const ajv = new Ajv.default({ strict: false, allErrors: true });
  formats.default(ajv);
  ajv.addSchema(JSON.parse(document), "contracts");
  return events.flatMap(({ message, payload }) => {
    const valid = ajv.getSchema(`contracts#/components/schemas/${message}`);
    return valid(payload) ? [] : [{ message, errors: valid.errors }];
  });
}

async function judge(one) {
  const { document: parsed, diagnostics } = await new Parser().parse(one.document);
  // "There is a newer version of AsyncAPI" is news, not a problem.
  const told = diagnostics.filter(({ code }) => code !== "asyncapi-latest-version");
  const problems = told.map(({ code, message, path, severity }) => ({
    code, message, path: path.join("/"), severity,
  }));
  return { problems, invalid: parsed ? refused(one) : [] };
}

Promise.all(given.map(judge)).then((judged) => process.stdout.write(JSON.stringify(judged)));
