"""Single layers next to the results of published code (golden/*.safetensors of SNRQ_SHARED, checked by its script)."""
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import helpers

COMMON = "--scale-type f32 --grid minmax --refine 0".split()


def set_options(key, metadata):
    """'b3sg64.ksnrq8': 3 bits, symmetric, group 64 (c: per channel), method ksnrq with 8 beams."""
    bits, kind, group, method, beams = re.fullmatch(r"b(\d)([sa])(c|g\d+)\.([a-z]+)(\d*)", key).groups()
    options = ["--bits", bits, "--group-size", "channel" if group == "c" else group[1:], "--method", method]
    if method in ("gptaq", "snrq", "ksnrq"):
        options += ["--alpha", "fixed:" + metadata[key + ".alpha"]]
    if method != "rtn" and group != "c":
        options += ["--groups", "permuted"]
    return options + (["--asymmetric"] if kind == "a" else []) + (["--beam", beams] if beams else [])


class ReferenceLayers(helpers.Test):
    def check_set(self, case, key, metadata):
        result = self.path(key + ".safetensors")
        options = [*set_options(key, metadata), *COMMON]
        printed = helpers.succeed("round", case, *options, "-o", result, "--json").json()
        checker = [sys.executable, helpers.shared("golden", "check_golden.py"), case, key, result]
        checked = subprocess.run(checker, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        same = None
        if key.endswith(("snrq", "ksnrq8")):
            second = self.path(key + ".2.safetensors")
            helpers.succeed("round", case, *options, "-o", second, ranks=2)
            same = helpers.sha256(second) == helpers.sha256(result)
        objective = re.search(r"objective (\S+)", checked.stdout)
        return checked, printed["objective"], float(objective.group(1)) if objective else None, same

    def check_case(self, name):
        case = helpers.shared("golden", name)
        metadata = helpers.read_safetensors_header(case)[0]["__metadata__"]
        keys = [key[:-len(".objective")] for key in metadata if key.endswith(".objective")]
        self.assertGreaterEqual(len(keys), 8)
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda key: self.check_set(case, key, metadata), keys))
        for key, (checked, printed, recomputed, same) in zip(keys, results):
            with self.subTest(set=key):
                self.assertEqual(checked.returncode, 0, checked.stdout)
                self.assertLess(abs(printed / recomputed - 1), 1e-6)
                self.assertIsNot(same, False, "2 ranks give other bytes than 1")

    def test_query_projection(self):
        self.check_case("real_b2_q_proj_192x192.safetensors")

    def test_down_projection(self):
        self.check_case("real_b4_down_proj_192x512.safetensors")

    def test_random_layer(self):
        self.check_case("synth_96x128.safetensors")

    def test_dead_inputs_and_nearly_singular(self):
        self.check_case("synth_64x64_dead2_nearsingular.safetensors")


if __name__ == "__main__":
    helpers.main()
