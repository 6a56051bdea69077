"""Exports in real engines: ./bootstrap.sh test-engines [--engine WORD] [--model WORD] [--table FILE]

Each engine of engines.py gets an environment of its own, reads what it should read, and is compared with the program:
log-probabilities of given tokens, ids of 200 texts, and at 8 bits the tokens that it generates from the full model. What
cannot be imported is skipped with its reason; what is imported and differs fails; a known fault of an engine is expected,
and reported when it is gone. Prints one table. Exit code 0: what was read is right, 77: nothing was read, 1: the rest.
"""
import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

import environments
import faults
import judge
from checkpoints import helpers
from engines import ENGINES, MODELS, Models, jobs_of_model

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 900  # for the start and for each export
EXPAND = os.path.join("data", "models", "smollm2", "expand.py")


def read_once(python, engine, requests, folder):
    """(versions, answers) of one process; fewer answers than requests: it died, or took too long."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        asked, told, log = (os.path.join(place, name) for name in ("jobs", "results", "log"))
        with open(asked, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(request) + "\n" for request in requests)
        with open(log, "wb") as f:
            process = subprocess.Popen([python, os.path.join(HERE, "readers", engine.reader + ".py"), asked, told],
                                       stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT,
                                       env=dict(os.environ, OMP_NUM_THREADS="1", HF_HOME=place, PYTHONDONTWRITEBYTECODE="1"))
            try:
                ended = "ended with code %d" % process.wait(timeout=SECONDS * (1 + len(requests)))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                ended = "took too long"
        lines = []
        if os.path.exists(told):
            with open(told, encoding="utf-8") as f:
                lines = [json.loads(line) for line in f if line.endswith("\n")]
        if not lines:
            with open(log, encoding="utf-8", errors="replace") as f:
                raise environments.Unavailable("%s: %s" % (ended, environments.last_words(f.read())))
    answers = lines[1:]
    if len(answers) < len(requests):
        answers.append({"error": "the engine %s" % ended})
    return lines[0]["versions"], answers


def read_all(python, engine, requests, folder):
    """All answers: a process that died is followed by one for the rest."""
    versions, answers = read_once(python, engine, requests, folder)
    while len(answers) < len(requests):
        answers += read_once(python, engine, requests[len(answers):], folder)[1]
    return versions, answers


def rows_of(engine, name, versions, jobs, requests, answers):
    """Judges the answers. The tokens that a full model generates are what its 8-bit exports must generate."""
    rows, generated = [], {}
    text = " ".join("%s %s" % pair for pair in versions.items() if pair[0] != "torch")
    for job, request, answer in zip(jobs, requests, answers):
        model, expected, tolerance = job.source.model, job.expected(engine), engine.tolerance_of(job)
        if job.generate and job.source.setting is None:
            generated[model.name] = {key: answer[key] for key in ("generated", "margins") if key in answer}
        elif job.generate:
            expected.update(generated[model.name])
        excuse = model.excuse if engine.reader == "llama_cpp" else lambda text: False
        distance, wrong = judge.problem(answer, expected, tolerance, request.get("texts", []), excuse)
        fault = faults.known(engine.known_as, versions, job.form, job.source.setting, job.options, job.notes(), request)
        if job.form is None and fault is None:
            fault = faults.unread_config(versions, model.config())
        result, why = judge.result_of(wrong, fault)
        if result in judge.BAD:
            print("%s: %s, %s, %s, %s: %s" % (result, engine.name, model.name, job.label(), job.source.setting, why), flush=True)
        rows.append(judge.Row(engine.name, text, name if name == "families" else model.name, job.label(), job.source.setting,
                              result, distance, tolerance if {"logprobs", "different"} & set(expected) else None, why))
        if "log" in answer and result == judge.FAILS:
            print("\n%s, %s, %s:\n%s" % (engine.name, model.name, job.label(), "\n".join(answer["log"].splitlines()[-6:])),
                  flush=True)
    return rows


def prepare(engine, models, name):
    """(jobs, their requests, rows of what cannot be made). Quantizes and exports what is not there yet."""
    try:
        jobs = jobs_of_model(engine, models, name)
    except unittest.SkipTest as reason:
        return [], [], [judge.Row(engine.name, "", name, "", None, judge.SKIPPED, why=str(reason))]
    kept, requests, rows = [], [], []
    for job in jobs:
        try:
            requests.append(job.request(engine))
            job.expected(engine)
            kept.append(job)
        except AssertionError as problem:
            why = problem.args[0].strip().splitlines()[-1]
            # A family that the engine has not, or sizes that the format has not: the program says so, and writes nothing.
            refused = judge.SKIPPED if "cannot be exported to" in why and name == "families" else judge.FAILS
            rows.append(judge.Row(engine.name, "", job.source.model.name, job.label(), job.source.setting, refused, why=why))
    return kept, requests, rows


def run_engine(engine, python, prepared, name, folder):
    jobs, requests, rows = prepared
    if jobs:
        try:
            rows = rows + rows_of(engine, name, *answers_of(engine, python, jobs, requests, folder))
        except environments.Unavailable as reason:
            rows = rows + [judge.Row(engine.name, "", name, "", None, judge.FAILS, why=str(reason))]
    print("%s read %s: %s" % (engine.name, name, dict(collections.Counter(row.result for row in rows))), flush=True)
    return rows


def answers_of(engine, python, jobs, requests, folder):
    versions, answers = read_all(python, engine, requests, folder)
    return versions, jobs, requests, answers


def expanded_smollm2(folder):
    """SmolLM2 as a checkpoint; SNRQ_SMOLLM2 may name one that is there."""
    directory = os.environ.get("SNRQ_SMOLLM2") or os.path.join(folder, "smollm2")
    if not os.path.exists(os.path.join(directory, "tokenizer_config.json")):
        subprocess.run([sys.executable, helpers.shared(*EXPAND.split(os.sep)), directory], check=True)
    return directory


def environments_of(engines, versions, folder):
    """{environment: interpreter, or why there is none}"""
    found = {}
    for name in dict.fromkeys(engine.environment for engine in engines):
        try:
            found[name] = environments.provide(folder, name, versions[name])
        except environments.Unavailable as reason:
            found[name] = reason
        except KeyError:
            found[name] = environments.Unavailable("the file of versions does not name it")
    return found


def report(rows, table):
    text = judge.markdown(judge.summary(rows))
    print("\n" + text, flush=True)
    if table:
        with open(table, "w", encoding="utf-8") as f:
            f.write(text)
    count = collections.Counter(row.result for row in rows)
    print(", ".join("%d %s" % (n, result) for result, n in count.items()))
    if any(count[result] for result in judge.BAD):
        return 1
    return 0 if count[judge.EQUAL] or count[judge.KNOWN] else 77


def arguments():
    parser = argparse.ArgumentParser(description="Reads exports with real engines and compares them with snrq.")
    parser.add_argument("--folder", default=os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "engines"),
                        help="where environments and exports are kept [build/engines]")
    parser.add_argument("--versions", default=environments.VERSIONS, help="the environments [tests/engines/versions.txt]")
    parser.add_argument("--engine", default="", help="only engines or environments whose name has this word")
    parser.add_argument("--model", default="", help="only these models, by a word of %s" % ", ".join(MODELS))
    parser.add_argument("--keep", action="store_true", help="take exports that are there, and leave them there")
    parser.add_argument("--table", help="write the table to this file, too")
    return parser.parse_args()


def main():
    given = arguments()
    files = os.path.join(given.folder, "exports")
    if not given.keep:
        shutil.rmtree(files, ignore_errors=True)
    os.makedirs(files, exist_ok=True)
    engines = [engine for engine in ENGINES if given.engine in engine.name or given.engine in engine.environment]
    pythons = environments_of(engines, environments.read_versions(given.versions), given.folder)
    rows = [judge.Row(engine.name, engine.environment, "", "", None, judge.SKIPPED, why=str(pythons[engine.environment]))
            for engine in engines if isinstance(pythons[engine.environment], environments.Unavailable)]
    models = Models(files, lambda: expanded_smollm2(given.folder))
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = []
        for name in (name for name in MODELS if given.model in name):
            for engine in engines:
                python = pythons[engine.environment]
                if isinstance(python, str):
                    running.append(pool.submit(run_engine, engine, python, prepare(engine, models, name), name, files))
        for future in running:
            rows += future.result()
    if not given.keep:
        shutil.rmtree(files, ignore_errors=True)
    return report(rows, given.table)


if __name__ == "__main__":
    sys.exit(main())
