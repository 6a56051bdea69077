"""Reads GGUF files with llama.cpp, as it is compiled into the package xllamacpp.

Functions of llama.cpp are called by their names, because the package's own interface gives no probabilities of given
tokens. A structure of settings is passed through as it comes, in more room than it takes: only the sizes of the
context are changed, and what stands there before shows that they are where this reader looks for them.
"""
import ctypes
import importlib.metadata

import numpy as np
import xllamacpp.xllamacpp

import protocol

class Settings(ctypes.Structure):
    """Of a model or a context. More than 16 bytes are passed in memory, of which llama.cpp reads what it knows."""
    _fields_ = [("numbers", ctypes.c_uint32 * 256)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
pointer, integer, boolean = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool
LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, pointer)
messages = []


def declare(name, result, *arguments):
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


log_set = declare("llama_log_set", None, LOG, pointer)
model_default_params = declare("llama_model_default_params", Settings)
context_default_params = declare("llama_context_default_params", Settings)
model_load = declare("llama_model_load_from_file", pointer, ctypes.c_char_p, Settings)
model_free = declare("llama_model_free", None, pointer)
model_get_vocab = declare("llama_model_get_vocab", pointer, pointer)
vocab_n_tokens = declare("llama_vocab_n_tokens", integer, pointer)
init_from_model = declare("llama_init_from_model", pointer, pointer, Settings)
context_free = declare("llama_free", None, pointer)
n_ctx = declare("llama_n_ctx", ctypes.c_uint32, pointer)
set_n_threads = declare("llama_set_n_threads", None, pointer, integer, integer)
get_memory = declare("llama_get_memory", pointer, pointer)
memory_clear = declare("llama_memory_clear", None, pointer, boolean)
batch_init = declare("llama_batch_init", Batch, integer, integer, integer)
batch_free = declare("llama_batch_free", None, Batch)
decode = declare("llama_decode", integer, pointer, Batch)
get_logits_ith = declare("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), pointer, integer)
tokenize = declare("llama_tokenize", integer, pointer, ctypes.c_char_p, integer, ctypes.POINTER(integer), integer, boolean,
                   boolean)


@LOG
def log(level, text, _):
    messages.append((level, text.decode(errors="replace")))


def fail(what):
    """With the errors that llama.cpp wrote last (level 4)."""
    errors = " ".join(text.strip() for level, text in messages if level == 4)
    raise RuntimeError("%s: %s" % (what, errors or "no reason given"))


class Context:
    def __init__(self, model, length):
        settings = context_default_params()
        if list(settings.numbers[:3]) != [512, 2048, 512]:
            raise RuntimeError("this llama.cpp has other settings of a context than the reader knows")
        settings.numbers[:3] = length, length, length
        self.pointer = init_from_model(model, settings)
        if not self.pointer:
            fail("no context")
        if not length <= n_ctx(self.pointer) < length + 256:  # llama.cpp takes multiples of 256
            raise RuntimeError("the context has %d tokens, not %d" % (n_ctx(self.pointer), length))
        set_n_threads(self.pointer, 1, 1)
        self.tokens = vocab_n_tokens(model_get_vocab(model))

    def clear(self):
        memory_clear(get_memory(self.pointer), True)

    def logits(self, ids, start=0):
        """Of the tokens that follow each of `ids`, which lie at `start` and behind it [ids, vocabulary]."""
        batch = batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, start + i, 1, 1
                batch.seq_id[i][0] = 0
            if decode(self.pointer, batch) != 0:
                fail("tokens cannot be read")
            rows = [np.ctypeslib.as_array(get_logits_ith(self.pointer, i), (self.tokens,)).copy() for i in range(len(ids))]
            return np.stack(rows).astype(np.float64)
        finally:
            batch_free(batch)


def log_probabilities(context, ids):
    context.clear()
    logits = context.logits(ids)[:-1]
    largest = logits.max(axis=1, keepdims=True)
    sums = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
    return (logits[np.arange(len(ids) - 1), ids[1:]] - sums).tolist()


def generate(context, prompt, count):
    """The tokens, and how far the logit of each is above the next."""
    context.clear()
    ids, asked, margins = list(prompt), list(prompt), []
    while len(ids) < len(prompt) + count:
        logits = context.logits(asked, len(ids) - len(asked))[-1]
        second, first = np.sort(logits)[-2:]
        margins.append(float(first - second))
        asked = [int(logits.argmax())]
        ids += asked
    return ids[len(prompt):], margins


def token_ids(model, text):
    data = text.encode()
    room = (integer * (len(data) + 16))()
    count = tokenize(model_get_vocab(model), data, len(data), room, len(room), True, True)
    if count < 0:
        fail("the text %r cannot be tokenized" % text)
    return list(room[:count])


def answer(job):
    messages.clear()
    model = model_load(job["path"].encode(), model_default_params())
    if not model:
        fail("llama.cpp does not load it")
    result = {"ids": [token_ids(model, text) for text in job.get("texts", [])]}
    if "windows" in job:
        longest = max(len(ids) for ids in job["windows"])
        context = Context(model, max(longest, len(job.get("prompt", [])) + job.get("tokens", 0)))
        result["logprobs"] = [log_probabilities(context, ids) for ids in job["windows"]]
        if "prompt" in job:
            result["generated"], result["margins"] = generate(context, job["prompt"], job["tokens"])
        context_free(context.pointer)
    model_free(model)
    return result


log_set(log, None)
declare("llama_backend_init", None)()
protocol.serve({"xllamacpp": importlib.metadata.version("xllamacpp")}, answer)
