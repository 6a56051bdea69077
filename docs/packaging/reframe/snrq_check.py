"""ReFrame: an installed snrq quantizes the bundled model, with the same bytes on one rank and on several.

    reframe -C docs/packaging/reframe/workstation.py -c docs/packaging/reframe/snrq_check.py -r

On a cluster, take its own configuration in place of workstation.py. Where snrq is a module, `--setvar modules=snrq`.
"""
import os

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.builtins import parameter, performance_function, run_after, sanity_function, variable

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tests", "data")
OPTIONS = "--bits 4 --group-size 64 --sequences 32 --length 256"


@rfm.simple_test
class SnrqQuantize(rfm.RunOnlyRegressionTest):
    """Quantizes, verifies and evaluates; `snrq verify` reads every byte again."""
    data = variable(str, value=os.path.normpath(DATA))
    ranks = parameter([1, 2, 4])
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    executable = "snrq"
    time_limit = "10m"
    num_cpus_per_task = 1
    env_vars = {"OMP_NUM_THREADS": "1"}
    tags = {"production", "maintenance"}

    @run_after("init")
    def prepare(self):
        model, text, heldout = (os.path.join(self.data, name) for name in ("model", "calibration.txt", "heldout.txt"))
        quantize = ["quantize", model, "--calibration", text, OPTIONS]
        self.num_tasks = self.ranks
        self.executable_opts = quantize + ["-o", "OUT"]
        # One rank without a launcher, for comparison.
        self.prerun_cmds = ["snrq --version", "snrq %s -o ALONE" % " ".join(quantize)]
        self.postrun_cmds = ["snrq verify OUT",
                             "for f in OUT/*.h5; do cmp $f ALONE/${f#OUT/} && echo \"same $f\"; done",
                             "snrq evaluate OUT --text %s --reference %s --length 256" % (heldout, model)]

    @sanity_function
    def quantized_and_the_same(self):
        kl = sn.extractsingle(r"^KL to reference\s+(\S+)", self.stdout, 1, float)
        return sn.all([sn.assert_found(r"0 bad, complete", self.stdout),
                       sn.assert_eq(sn.count(sn.findall(r"^same OUT/", self.stdout)), 7),
                       sn.assert_lt(kl, 0.01)])

    @performance_function("s")
    def seconds(self):
        """Of the run on several ranks: the last of the two."""
        return sn.extractall(r"^(\S+) s in all, peak memory", self.stderr, 1, float)[-1]

    @performance_function("MB")
    def memory(self):
        return sn.extractall(r"in all, peak memory (\d+) MB per rank", self.stderr, 1, float)[-1]
