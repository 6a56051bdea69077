"""How the readers of this folder are asked: each runs in the environment of its engine, on files of one JSON object a line.

    python READER.py JOBS.jsonl RESULTS.jsonl

A job: "path" (the export), and what is asked about it:

    "windows": [[id, ...], ...]  ->  "logprobs": of every token of a window but the first [[x, ...], ...]
    "prompt": [id, ...], "tokens": N  ->  "generated": the N likeliest next tokens, one after the other [id, ...]; but for vLLM also
                                           "margins": how far the logit of each is above the second
    "texts": [TEXT, ...]  ->  "ids": token ids of each text [[id, ...], ...]

A line of the results is for the job of the same line. It has the answers, or "error" and "log": the engine did not read
the export. A reader that dies leaves fewer lines than jobs. The first line of all is {"versions": {PACKAGE: VERSION}}.
"""
import json
import sys
import traceback


def write(file, result):
    file.write(json.dumps(result) + "\n")
    file.flush()


def serve(versions, answer):
    """Answers all jobs. `answer(job)` returns the object of one; what it raises is an answer, too."""
    with open(sys.argv[1], encoding="utf-8") as jobs, open(sys.argv[2], "w", encoding="utf-8") as results:
        write(results, {"versions": versions})
        for line in jobs:
            try:
                result = answer(json.loads(line))
            except Exception as problem:  # an engine raises whatever it likes
                text = " ".join(str(problem).split()) or type(problem).__name__
                result = {"error": "%s: %s" % (type(problem).__name__, text), "log": traceback.format_exc()}
            write(results, result)
