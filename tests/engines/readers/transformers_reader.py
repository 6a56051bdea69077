"""Reads checkpoints with transformers, which asks compressed-tensors, or optimum and GPTQModel, for quantized ones."""
import importlib.metadata
import logging
import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")

import torch
import transformers

import protocol

PACKAGES = ["transformers", "compressed-tensors", "gptqmodel", "optimum", "torch"]


def installed(packages):
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def log_probabilities(model, windows):
    """One pass for all windows of a length."""
    ids = torch.tensor(windows)
    logits = model(ids).logits[:, :-1].double()
    return logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0].tolist()


def generate(model, prompt, count):
    """The tokens, one by one, without what generation_config.json says about ends and penalties, and how far the logit of
    each is above the next."""
    ids, asked, cache, margins = list(prompt), list(prompt), None, []
    while len(ids) < len(prompt) + count:
        output = model(torch.tensor([asked]), past_key_values=cache, use_cache=True)
        first, second = output.logits[0, -1].topk(2).values.tolist()
        margins.append(first - second)
        asked, cache = [int(output.logits[0, -1].argmax())], output.past_key_values
        ids += asked
    return ids[len(prompt):], margins


def ask(model, job):
    result = {}
    if "windows" in job:
        result["logprobs"] = log_probabilities(model, job["windows"])
    if "prompt" in job:
        result["generated"], result["margins"] = generate(model, job["prompt"], job["tokens"])
    return result


def token_ids(path, texts):
    """By tokenizer.json: classes of single models build a tokenizer of their own, with other ids."""
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(path, "tokenizer.json"))
    return [tokenizer(text)["input_ids"] for text in texts]


def answer(job):
    result = {}
    if "windows" in job or "prompt" in job:
        model = transformers.AutoModelForCausalLM.from_pretrained(job["path"], dtype=getattr(torch, job.get("dtype", "float32")),
                                                                  attn_implementation="eager")  # others cap no scores
        result = ask(model.eval(), job)
    if "texts" in job:
        result["ids"] = token_ids(job["path"], job["texts"])
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    logging.disable(logging.WARNING)
    protocol.serve(installed(PACKAGES), answer)
