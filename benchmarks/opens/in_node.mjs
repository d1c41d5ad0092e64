// Answers with transformers.js in Node.js, alone: node in_node.mjs MODULE DTYPE OUTPUT, cases as JSON on stdin.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

import { answers } from "./answers.mjs";

const [module, dtype, output] = process.argv.slice(2);
const js = await import(pathToFileURL(module));
js.env.allowRemoteModels = false;
js.env.allowLocalModels = true;
js.env.localModelPath = "";
const cases = JSON.parse(readFileSync(0, "utf-8"));
writeFileSync(output, JSON.stringify(await answers(js, { dtype, device: "cpu" }, cases)));
