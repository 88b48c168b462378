// Runs a client under Node: JSON in, JSON out.
import { readFileSync } from "node:fs";

const { client, given } = JSON.parse(readFileSync(0, "utf8"));
const { buy } = await import(client);
process.stdout.write(JSON.stringify(await buy(given)));
