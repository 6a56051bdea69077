// Loads GGUF files with llama.cpp, through the package node-llama-cpp, and does what a job file asks:
//
//   [{"path": FILE, "texts": [TEXT, ...], "special": BOOL, "windows": [[id, ...], ...], "prompt": TEXT, "tokens": N}, ...]
//
// Writes, for each model, the ids of the texts, the log-probability of every token of a window but the first, and the
// likeliest continuation of the prompt. Run by test_llama_cpp.py:
//
//   node test_llama_cpp.mjs FOLDER-OF-node_modules JOB.json RESULT.json
import path from "node:path";
import {readFileSync, writeFileSync} from "node:fs";
import {pathToFileURL} from "node:url";

const entry = path.join(process.argv[2], "node_modules", "node-llama-cpp", "dist", "index.js");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(entry).href);
const llama = await getLlama({gpu: false, build: "never", skipDownload: true, progressLogs: false,
                              logLevel: LlamaLogLevel.error});

// Of every token but the first.
async function logProbabilities(sequence, ids) {
    await sequence.clearHistory();
    const output = await sequence.controlledEvaluate(ids.map((id) => [id, {generateNext: {probabilities: true}}]));
    return ids.slice(1).map((id, i) => Math.log(output[i].next.probabilities.get(id)));
}

async function continuation(model, sequence, prompt, count) {
    await sequence.clearHistory();
    let next = model.tokenize(prompt, true);
    const ids = [...next];
    while (ids.length < next.length + count && !model.isEogToken(ids.at(-1))) {
        const output = await sequence.controlledEvaluate(
            ids.slice(sequence.nextTokenIndex).map((id, i, rest) =>
                i + 1 < rest.length ? id : [id, {generateNext: {token: true, options: {temperature: 0}}}]));
        ids.push(output.at(-1).next.token);
    }
    return model.detokenize(ids);
}

async function evaluate(job) {
    const model = await llama.loadModel({modelPath: job.path, gpuLayers: 0});
    const longest = Math.max(16, (job.tokens ?? 0) + 64, ...(job.windows ?? []).map((ids) => ids.length + 1));
    const result = {ids: (job.texts ?? []).map((text) => model.tokenize(text, job.special ?? false)), windows: []};
    if (job.windows || job.prompt) {
        const context = await model.createContext({contextSize: longest, batchSize: longest, threads: 1});
        const sequence = context.getSequence();
        for (const ids of job.windows ?? [])
            result.windows.push(await logProbabilities(sequence, ids));
        if (job.prompt)
            result.continuation = await continuation(model, sequence, job.prompt, job.tokens);
        await context.dispose();
    }
    await model.dispose();
    return result;
}

const results = [];
for (const job of JSON.parse(readFileSync(process.argv[3], "utf8")))
    results.push(await evaluate(job));
writeFileSync(process.argv[4], JSON.stringify(results));
await llama.dispose();
