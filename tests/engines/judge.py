"""Whether what an engine says about an export is what the program says, and the table of it."""
import os
import re

import numpy as np


class Tolerance:
    """How far log-probabilities may be apart, and why. `relative`: the sum of all distances, as a share of the sum of the
    log-probabilities; else the largest distance of a token."""

    def __init__(self, limit, relative, why):
        self.limit, self.relative, self.why = limit, relative, why

    def of_a_broken_model(self):
        """A model without sense left answers to small changes with large ones."""
        return Tolerance(10 * self.limit, self.relative, self.why + "; rounding has broken the model")

    def distance(self, expected, found):
        apart = np.abs(np.asarray(found, dtype=np.float64) - expected)
        return float(apart.sum() / np.abs(expected).sum() if self.relative else apart.max())

    def text(self, distance):
        return "%.2g %%" % (100 * distance) if self.relative else "%.1e" % distance


EQUAL, KNOWN, SKIPPED, FAILS, MENDED = "equal", "known fault", "skipped", "FAILS", "MENDED"
BAD = (FAILS, MENDED)
NEAR = 0.2  # between the logits of the two likeliest tokens: weights or activations of 8 bits turn such a tie


class Row:
    """One export in one engine; form "": nothing was read. `why`: of a fault, a failure or what is skipped."""

    def __init__(self, engine, versions, model, form, setting, result, distance=None, tolerance=None, why=""):
        self.engine, self.versions, self.model, self.form, self.setting = engine, versions, model, form, setting
        self.result, self.distance, self.tolerance, self.why = result, distance, tolerance, why


def differing_ids(texts, expected, found, excuse):
    """Texts whose ids differ and for which excuse(text) is false."""
    return [text for text, ours, theirs in zip(texts, expected, found) if ours != theirs and not excuse(text)]


def problem(answer, expected, tolerance, texts, excuse):
    """(distance, what is wrong or None). `expected` has what is compared: logprobs [windows, length - 1], ids, generated; or
    different, the weights that are not those of the output."""
    if "error" in answer:
        return None, answer["error"]
    distance = None
    if "different" in expected:
        wrong = ", ".join("%d of %s" % (count, name) for name, count in list(answer["different"].items())[:4])
        return 0.0, "weights differ: " + wrong if wrong else None if answer["compared"] else "no tensor was compared"
    if "logprobs" in expected:
        found = np.asarray(answer["logprobs"], dtype=np.float64)
        if found.shape != expected["logprobs"].shape or not np.isfinite(found).all():
            return None, "log-probabilities of shape %s, or not finite" % (found.shape,)
        distance = tolerance.distance(expected["logprobs"], found)
        if not distance <= tolerance.limit:
            return distance, "log-probabilities differ: mean %.4g, not %.4g" % (found.mean(), expected["logprobs"].mean())
    if "ids" in expected and "ids" in answer:  # GPTQModel leaves tokenizers to others
        wrong = differing_ids(texts, expected["ids"], answer["ids"], excuse)
        if wrong or len(answer["ids"]) != len(texts):
            return distance, "%d texts have other ids, %s" % (len(wrong), ", ".join(map(repr, wrong[:8])))
    if "generated" in expected and answer["generated"] != expected["generated"]:
        same = len(os.path.commonprefix([answer["generated"], expected["generated"]]))
        if same >= len(expected["generated"]) or expected.get("margins", [1.0] * (same + 1))[same] >= NEAR:
            return distance, "generates other tokens than the full model after %d" % same
    return distance, None


def result_of(wrong, fault):
    """(result, why) of one export: `wrong` is what differs or None, `fault` a known fault of the engine or None."""
    if wrong is None:
        return (MENDED, "should fail, and does not: " + fault) if fault else (EQUAL, "")
    # A package that is not there is no fault of the engine, and would hide that it has none.
    missing = re.match(r"(ModuleNotFound|Import)Error", wrong)
    return (KNOWN, fault) if fault and not missing else (FAILS, wrong)


def listed(settings):
    """[Setting(2, 32), Setting(2, 64), Setting(3, 32), ...] as `2, 3 bits: g32, g64`."""
    if settings[0] is None:
        return "not quantized"
    by_bits = {}
    for setting in dict.fromkeys(map(str, settings)):
        bits, group = setting.split()
        by_bits.setdefault(int(bits), []).append(group)
    by_groups = {}
    for bits, groups in sorted(by_bits.items()):
        by_groups.setdefault(", ".join(groups), []).append(str(bits))
    return "; ".join("%s bits: %s" % (", ".join(bits), groups) for groups, bits in by_groups.items())


HEAD = ("engine", "versions", "model", "export", "kind", "settings", "result", "difference", "tolerance", "why")


def summary(rows):
    """The table's lines, a tuple of words each: settings that have the same result share one."""
    groups = {}
    for row in rows:
        kind = row.setting.kind if row.setting else ""
        key = (row.engine, row.versions, row.model, row.form, kind, row.result, row.why, row.tolerance)
        groups.setdefault(key, []).append(row)
    lines = []
    for (engine, versions, model, form, kind, result, why, tolerance), members in groups.items():
        distances = [row.distance for row in members if row.distance is not None]
        reasons = [why] if why else [row.tolerance.why for row in members if row.tolerance]
        lines.append((engine, versions, model, form, kind, listed([row.setting for row in members]) if form else "",
                      result if result == SKIPPED else "%s, %d" % (result, len(members)),
                      tolerance.text(max(distances)) if distances else "", tolerance.text(tolerance.limit) if tolerance else "",
                      (reasons or [""])[0]))
    return lines


def markdown(lines):
    return "\n".join("| %s |" % " | ".join(" ".join(word.replace("|", "/").split()) for word in words)
                     for words in [HEAD, ["---"] * len(HEAD), *lines]) + "\n"
