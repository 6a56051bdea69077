"""Reads checkpoints of the format gptq with GPTQModel's own loader, and a model that is not quantized with transformers."""
import os

# GPTQModel counts what cores there are, and would compile kernels for them.
os.environ.update(GPTQMODEL_CPU_WORKERS="1", DEBUG="0")

import gptqmodel
import torch
import transformers

import protocol
import transformers_reader


def load(job):
    if "backend" not in job:
        return transformers.AutoModelForCausalLM.from_pretrained(job["path"], dtype=torch.float32, attn_implementation="eager").eval()
    settings = {"dtype": getattr(torch, job["dtype"])} if "dtype" in job else {}
    loaded = gptqmodel.GPTQModel.load(job["path"], device="cpu", backend=getattr(gptqmodel.BACKEND, job["backend"]), **settings)
    return loaded.model.eval()


torch.set_num_threads(1)
torch.set_grad_enabled(False)
protocol.serve(transformers_reader.installed(["gptqmodel", "transformers", "torch"]),
               lambda job: transformers_reader.ask(load(job), job))
