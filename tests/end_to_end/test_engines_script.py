"""The opt-in script that reads exports with engines, without an engine: what cannot be had is skipped with its reason, and
what a reader says is judged. The engines themselves: ./bootstrap.sh test-engines."""
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np

import helpers

SCRIPT = os.path.join(os.path.dirname(helpers.HERE), "engines", "test_engines.py")
sys.path.insert(0, os.path.dirname(SCRIPT))

import environments
import faults
import judge
from checkpoints import Setting


def run_script(*arguments):
    """Without a registry: pip finds no package."""
    where = dict(os.environ, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull, PIP_RETRIES="0")
    where.pop("PIP_FIND_LINKS", None)
    return subprocess.run([sys.executable, SCRIPT, *arguments], env=where, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=500, check=False, text=True)


@unittest.skipIf(helpers.SANITIZED, "the script is not what is checked with sanitizers")
class Script(helpers.Test):
    def test_nothing_can_be_had(self):
        versions = self.path("versions.txt")
        with open(versions, "w") as f:
            f.write("[llama.cpp]\nnumpy==2.3.5\nxllamacpp==2026.10.11549  # of no registry\n")
        done = run_script("--folder", self.path("engines"), "--versions", versions)
        self.assertEqual(done.returncode, 77, done.stdout)
        table = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
        self.assertEqual({row[6] for row in table}, {"skipped"}, done.stdout)
        reasons = {row[0].strip("| "): row[-1] for row in table}
        self.assertRegex(reasons["llama.cpp"], "numpy==2.3.5|venv")
        self.assertRegex(reasons["vLLM"], "does not name it")
        self.assertIn("%d skipped" % len(table), done.stdout)

    def test_versions_are_pinned(self):
        """And torch is the first: it is checked for CUDA before anything can bring another one."""
        sets = environments.read_versions()
        for name, requirements in sets.items():
            for requirement in requirements:
                self.assertRegex(requirement, r"^([a-z][a-z-]*==[0-9.]+|-[a-z]+)$", name)
            if any(requirement.startswith("torch==") for requirement in requirements):
                self.assertTrue(requirements[0].startswith("torch=="), name)
        self.assertGreater(len(sets), 5)


class Judge(unittest.TestCase):
    EXACT, RELATIVE = judge.Tolerance(1e-3, False, "exact"), judge.Tolerance(0.02, True, "rounded")

    def wrong(self, answer, expected, tolerance=EXACT, texts=(), excuse=lambda text: False):
        return judge.problem(answer, expected, tolerance, texts, excuse)[1]

    def test_log_probabilities(self):
        expected = {"logprobs": np.array([[-1.0, -2.0], [-3.0, -4.0]])}
        near, far = (expected["logprobs"] + np.array([[0, by], [0, 0]]) for by in (5e-4, 5e-3))
        self.assertIsNone(self.wrong({"logprobs": near.tolist()}, expected))
        self.assertRegex(self.wrong({"logprobs": far.tolist()}, expected), "log-probabilities differ")
        self.assertIsNone(self.wrong({"logprobs": far.tolist()}, expected, self.RELATIVE))
        # Distances that cancel in the mean do not cancel here.
        swapped = expected["logprobs"][:, ::-1]
        self.assertRegex(self.wrong({"logprobs": swapped.tolist()}, expected, self.RELATIVE), "log-probabilities differ")

    def test_answers_that_are_none(self):
        expected = {"logprobs": np.array([[-1.0, -2.0]])}
        for answer in ([[-1.0]], [[-1.0, float("nan")]], [[-1.0, float("-inf")]]):
            self.assertRegex(self.wrong({"logprobs": answer}, expected, self.RELATIVE), "not finite")
        self.assertEqual(self.wrong({"error": "KeyError: x"}, expected), "KeyError: x")

    def test_decoded_weights(self):
        expected = {"different": {}}
        self.assertIsNone(self.wrong({"compared": 9, "different": {}}, expected))
        self.assertRegex(self.wrong({"compared": 9, "different": {"lm_head": 3}}, expected), "weights differ: 3 of lm_head")
        self.assertRegex(self.wrong({"compared": 0, "different": {}}, expected), "no tensor")

    def test_ids(self):
        texts, expected = ["a", "</s>"], {"ids": [[1], [2]]}
        self.assertIsNone(self.wrong({"ids": [[1], [2]]}, expected, texts=texts))
        self.assertRegex(self.wrong({"ids": [[1], [3]]}, expected, texts=texts), "1 texts have other ids, '</s>'")
        self.assertIsNone(self.wrong({"ids": [[1], [3]]}, expected, texts=texts, excuse=lambda text: text == "</s>"))
        self.assertRegex(self.wrong({"ids": [[1]]}, expected, texts=texts), "other ids")

    def test_generated_tokens(self):
        expected = {"generated": [5, 6, 7]}
        self.assertIsNone(self.wrong({"generated": [5, 6, 7]}, expected))
        self.assertRegex(self.wrong({"generated": [5, 6, 8]}, expected), "after 2")
        self.assertRegex(self.wrong({"generated": []}, expected), "after 0")
        # A near tie of the full model may turn; what follows is another text.
        self.assertIsNone(self.wrong({"generated": [5, 6, 8]}, dict(expected, margins=[2, 2, judge.NEAR / 2])))
        self.assertRegex(self.wrong({"generated": [5, 8, 7]}, dict(expected, margins=[2, 2, judge.NEAR / 2])), "after 1")

    def test_known_faults(self):
        """A fault that is expected and gone is not passed over."""
        self.assertEqual(judge.result_of(None, None)[0], judge.EQUAL)
        self.assertEqual(judge.result_of("differs", None), (judge.FAILS, "differs"))
        self.assertEqual(judge.result_of("differs", "fault")[0], judge.KNOWN)
        self.assertEqual(judge.result_of(None, "fault")[0], judge.MENDED)
        self.assertEqual(judge.result_of("ModuleNotFoundError: No module named 'x'", "fault")[0], judge.FAILS)
        self.assertEqual({judge.FAILS, judge.MENDED}, set(judge.BAD))

    def test_versions_of_faults(self):
        words = "snrq: transformers: permuted groups: compressed-tensors %s refuses them; take another"
        for range_of_versions, concerned in (("0.19.0 and later", ["0.19.0", "0.20.1"]), ("before 0.18.0", ["0.17.1"]),
                                             ("0.18.0 to 0.20.0", ["0.18.0", "0.19.0"]), ("0.20.1", ["0.20.1"])):
            for installed in ("0.17.1", "0.18.0", "0.19.0", "0.20.1"):
                fault = faults.noted("transformers", {"compressed-tensors": installed}, [words % range_of_versions], {})
                self.assertEqual(fault is not None, installed in concerned, (range_of_versions, installed))
        self.assertIsNone(faults.noted("vllm", {"compressed-tensors": "0.20.1"}, [words % "0.20.1"], {}))

    def test_faults_of_older_versions(self):
        """They are of versions that the program's notes do not name."""
        for installed, bits, kind, known in (("0.12.2", 4, "asymmetric", True), ("0.12.2", 4, "symmetric", False),
                                             ("0.15.0.1", 2, "symmetric", True), ("0.15.0.1", 4, "asymmetric", False)):
            packages = {"transformers": "5.24.0", "compressed-tensors": installed}
            fault = faults.known("transformers", packages, "compressed-tensors", Setting(bits, 64, kind), (), [], {})
            self.assertEqual(fault is not None, known, (installed, bits, kind))

    def test_notes_of_exports(self):
        """What the program tells of engines is what the script reads."""
        with tempfile.TemporaryDirectory() as folder:
            out = helpers.quantize(os.path.join(folder, "out"), "--method", "rtn", "--bits", 4, "--group-size", 64, "--asymmetric")
            told = helpers.succeed("export", out, "--format", "compressed-tensors", "-o", os.path.join(folder, "export"))
        notes = (told.stdout + told.stderr).splitlines()
        for installed, known in (("0.17.1", False), ("0.20.1", True)):
            fault = faults.noted("transformers", {"compressed-tensors": installed}, notes, {})
            self.assertEqual(fault is not None, known, notes)

    def test_table(self):
        """Settings with the same result share a line."""
        rows = [judge.Row("E", "1", "M", "f", Setting(bits, group), judge.EQUAL, 1e-5 * bits, self.EXACT)
                for bits in (2, 4) for group in (32, "channel")]
        rows.append(judge.Row("E", "1", "M", "f", Setting(8, 32), judge.FAILS, None, self.EXACT, "a | b"))
        lines = judge.markdown(judge.summary(rows)).splitlines()
        self.assertEqual(len(lines), 4)
        self.assertIn("| 2, 4 bits: g32, channel | equal, 4 | 4.0e-05 | 1.0e-03 | exact |", lines[2])
        self.assertIn("| 8 bits: g32 | FAILS, 1 |  | 1.0e-03 | a / b |", lines[3])


if __name__ == "__main__":
    helpers.main()
