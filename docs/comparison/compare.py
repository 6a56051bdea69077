"""Compares snrq with other quantizers on one model: the same tokens, groups and widths, one scorer for all.

    compare.py --install                  the peers' virtual environments (versions/*.txt) below build/comparison
    compare.py MODEL --calibration TEXT --heldout TEXT [--only NAME ...] [--bits 3 4]

Every run is a process of its own, one at a time, on one thread and below normal priority. Its CPU seconds (user and
system, loading included) and peak memory are the kernel's. `--cpu-limit` ends a run; the table then says how far it came.
Results are kept in build/comparison/results.json: a run replaces its own row and no other, and `--table` prints them.
Another model, text or number of windows needs another `--build`.
Only Python's own modules are needed here.
"""
import argparse
import array
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
OURS = {"snrq rtn": ["--method", "rtn"], "snrq gptq": ["--method", "gptq"], "snrq snrq": ["--method", "snrq"],
        "snrq ksnrq": ["--method", "ksnrq"]}
PEERS = {"llm-compressor gptq": "llmcompressor", "GPTQModel gptq": "gptqmodel", "AutoRound": "autoround",
         "llama.cpp": "llama_cpp"}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
               "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "CUDA_VISIBLE_DEVICES": ""}


def python_of(build, peer):
    return build / "venv" / peer / "bin" / "python"


def install(build, only):
    for peer in PEERS.values():
        if only and not any(word in peer for word in only):
            continue
        subprocess.check_call([sys.executable, "-m", "venv", build / "venv" / peer])
        wanted = (HERE / "versions" / (peer + ".txt")).read_text().split()
        pip = [python_of(build, peer), "-m", "pip", "install", "-q"]
        # torch first and by itself: what needs it would otherwise bring one for CUDA.
        subprocess.check_call(pip + [line for line in wanted if line.startswith("torch==")])
        subprocess.check_call(pip + wanted)


def measured(command, log, limit=0):
    """Runs a command; its exit code, CPU seconds and peak memory in bytes (of the largest of its processes)."""
    def prepare():
        os.nice(10)
        if limit:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    with open(log, "wb") as out:
        child = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.STDOUT,
                                 env=dict(os.environ, **ENVIRONMENT), preexec_fn=prepare, cwd=log.parent)
        _, status, usage = os.wait4(child.pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def take_ids(args, text, windows, out):
    """The first windows of a text as a file of ids."""
    every = out.with_suffix(".all")
    subprocess.check_call([args.snrq, "tokenize", args.model, "--text", text, "-o", every], stdout=subprocess.DEVNULL,
                          env=dict(os.environ, **ENVIRONMENT))
    ids = array.array("i", every.read_bytes())
    every.unlink()
    if len(ids) < windows * args.length:
        sys.exit("%s has %d tokens, %d are needed" % (text, len(ids), windows * args.length))
    out.write_bytes(ids[:windows * args.length].tobytes())
    return out


def command_of(args, name, bits, ids, out):
    if name in OURS:
        return [args.snrq, "quantize", args.model, "--token-file", ids, "--windows", "consecutive", "--sequences",
                args.sequences, "--length", args.length, "--bits", bits, "--group-size", args.group, "-o", out] + OURS[name]
    return [python_of(args.build, PEERS[name]), HERE / "peers" / ("use_%s.py" % PEERS[name]), args.model, ids, args.length, bits,
            args.group, out]


def run(args, name, bits, calibration, heldout):
    """One row of the table."""
    work = args.build / "work"
    work.mkdir(parents=True, exist_ok=True)
    stem = "%s-%d" % (name.replace(" ", "-"), bits)
    out, log = work / stem, work / (stem + ".log")
    shutil.rmtree(out, ignore_errors=True)
    code, seconds, memory = measured(command_of(args, name, bits, calibration, out), log, args.cpu_limit)
    row = {"name": name, "bits": bits, "cpu": round(seconds), "memory": memory}
    text = log.read_text(errors="replace")
    blocks = re.findall(r"layers\.(\d+)\.", text)
    stored = re.search(r"bits per weight: ([\d.]+)", text)
    if stored:
        row["stored"] = float(stored.group(1))
    if code != 0:
        row["failed"] = "ended after %d CPU s%s" % (seconds, " in block %s" % blocks[-1] if blocks else ", see its log")
        return row
    scored = log.with_suffix(".scores")
    code, _, _ = measured([args.snrq, "evaluate", out, "--token-file", heldout, "--length", args.length, "--reference",
                           args.model, "--json"], scored)
    if code != 0:
        row["failed"] = "not scored: " + scored.read_text(errors="replace")[-200:]
        return row
    figures = json.loads(re.search(r"^\{.*\}$", scored.read_text(), re.MULTILINE).group())
    row.update({"perplexity": figures["perplexity"], "kl": figures["kl"], "top1": figures["top1_agreement"],
                "tokens": figures["tokens"]})
    if not args.keep:
        shutil.rmtree(out, ignore_errors=True)
    return row


def table(rows):
    lines = ["| bits | quantizer | perplexity | KL | same first choice | CPU s | peak memory |", "|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["bits"], row["name"])):
        name = row["name"] + (" (%.2f bits stored)" % row["stored"] if "stored" in row else "")
        cells = [row["failed"], "", ""] if "failed" in row else [
            "%.2f" % row["perplexity"], "%.3f" % row["kl"], "%.1f %%" % (100 * row["top1"])]
        lines.append("| %d | %s | %s | %d | %.2f GB |" % (row["bits"], name, " | ".join(cells), row["cpu"], row["memory"] / 1e9))
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--calibration", type=Path, help="text whose first windows calibrate")
    parser.add_argument("--heldout", type=Path, help="text whose first windows are scored")
    parser.add_argument("--only", nargs="*", default=[], help="rows whose name contains one of these words")
    parser.add_argument("--bits", nargs="*", type=int, default=[2, 3, 4])
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--sequences", type=int, default=16, help="calibration windows")
    parser.add_argument("--windows", type=int, default=6, help="scored windows")
    parser.add_argument("--cpu-limit", type=int, default=0, help="CPU seconds of a run; 0: no limit")
    parser.add_argument("--build", type=Path, default=TOP / "build" / "comparison")
    parser.add_argument("--snrq", type=Path, default=TOP / "build" / "release" / "snrq")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--table", action="store_true", help="print the table of all results, run nothing")
    parser.add_argument("--keep", action="store_true", help="keep the quantized models")
    return parser.parse_args()


def main():
    args = arguments()
    args.build = args.build.resolve()
    kept = args.build / "results.json"
    if args.install:
        return install(args.build, args.only)
    if args.table:
        return print(table(json.loads(kept.read_text())))
    if not (args.model and args.calibration and args.heldout):
        sys.exit("needed: MODEL, --calibration and --heldout; see --help")
    args.model, args.snrq = args.model.resolve(), args.snrq.resolve()
    args.build.mkdir(parents=True, exist_ok=True)
    calibration = take_ids(args, args.calibration, args.sequences, args.build / "calibration.i32")
    heldout = take_ids(args, args.heldout, args.windows, args.build / "heldout.i32")
    for name in list(OURS) + list(PEERS):
        if args.only and not any(word in name for word in args.only):
            continue
        if name in PEERS and not python_of(args.build, PEERS[name]).exists():
            print("%s: not installed, left out" % name)
            continue
        for bits in args.bits:
            row = run(args, name, bits, calibration, heldout)
            rows = json.loads(kept.read_text()) if kept.exists() else []
            rows = [old for old in rows if (old["name"], old["bits"]) != (name, bits)] + [row]
            kept.write_text(json.dumps(rows, indent=1) + "\n")
            print(json.dumps(row), flush=True)
    print(table(json.loads(kept.read_text())))


if __name__ == "__main__":
    main()
