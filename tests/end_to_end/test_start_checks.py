"""What cannot work is refused at the start, with what to change; what will be slow is said."""
import json
import os
import re
import shutil
import subprocess
import sys
import time
import unittest

import helpers


def arguments(out, *more):
    words = ["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out, "--sequences", 2, "--length", 32,
             "--bits", 3, "--method", "rtn"]
    return helpers.with_options(words, *more)


def start(out, *more, ranks=0, prefix=(), **variables):
    return launch([*prefix, *helpers.command(arguments(out, *more), ranks)], **variables)


def launch(words, **variables):
    done = subprocess.run(words, env=dict(helpers.environment(1), **variables), timeout=60, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return helpers.Result(done.returncode, done.stdout.decode(), done.stderr.decode(), words)


class StartChecks(helpers.Test):
    def check_refused(self, result, *words):
        self.assertEqual(result.code, helpers.USAGE, result)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertEqual(os.listdir(self.folder), [])

    def test_many_tasks_that_are_alone(self):
        self.check_refused(start(self.path("out"), SLURM_NTASKS="4"), "SLURM_NTASKS is 4", "srun --mpi=pmix")

    def test_one_rank_on_purpose_in_a_larger_job(self):
        self.assertEqual(start(self.path("out"), ranks=1, SLURM_NTASKS="4").code, 0)

    def test_memory(self):
        out = self.path("out")
        self.check_refused(start(out, ranks=2, SLURM_MEM_PER_NODE="50"), "Slurm's --mem", "--ignore-memory", "52 MB are allowed")
        self.assertEqual(start(out, "--ignore-memory", ranks=2, SLURM_MEM_PER_NODE="50").code, 0)

    def test_shared_memory(self):
        small = self.path("shm")
        with helpers.file_system(small, "size=64k"):
            result = start(self.path("out"), OMPI_MCA_osc_sm_backing_directory=small)
            self.assertEqual(result.code, helpers.USAGE, result)
            self.assertIn(small + " has 0 MB left", result.stderr)

    def test_more_threads_than_cores(self):
        taskset = shutil.which("taskset")
        if not taskset:
            raise unittest.SkipTest("there is no taskset")
        core = str(min(os.sched_getaffinity(0)))
        result = start(self.path("out"), "--threads", 3, "--dry-run", prefix=[taskset, "-c", core])
        self.assertEqual(result.code, 0, result)
        self.assertIn("3 threads per rank on 1 core", result.stderr)
        self.assertRegex(result.stderr, "warning: a rank runs 3 threads on the 1 core .*--bind-to none")

    def test_more_ranks_than_cores(self):
        cores = len(os.sched_getaffinity(0))
        result = start(self.path("out"), "--dry-run", ranks=cores + 1)
        self.assertIn("run %d threads on %d core" % (cores + 1, cores), result.stderr)

    def start_on_cores(self, *cores):
        """A rank on each of these cores."""
        taskset = shutil.which("taskset")
        if not taskset:
            raise unittest.SkipTest("there is no taskset")
        helpers.need_several_programs()
        words = helpers.command(arguments(self.path("out"), "--dry-run"), 1)
        parts = [[":", "-n", "1", taskset, "-c", str(core), *words[3:]] for core in cores]
        result = launch([words[0], *sum(parts, [])[1:]])
        self.assertEqual(result.code, 0, result)
        return result.stderr

    def test_ranks_on_cores_of_their_own(self):
        cores = sorted(os.sched_getaffinity(0))[:2]
        if len(cores) < 2:
            raise unittest.SkipTest("there is one core only")
        said = self.start_on_cores(*cores)
        self.assertIn("2 ranks on 1 node, 1 thread per rank on 1 core,", said)
        self.assertNotIn("warning", said)

    def test_ranks_on_the_same_core(self):
        """Also if there were enough cores for all: the third rank has one of its own."""
        first, *others = sorted(os.sched_getaffinity(0))
        said = self.start_on_cores(first, first, *others[:1])
        self.assertIn("%d ranks on 1 node, 1 thread per rank on 1 core," % (2 + len(others[:1])), said)
        self.assertIn("warning: ranks of a node run 2 threads on 1 core together", said)

    def test_binding_by_mpirun(self):
        bound = [helpers.command([], 1)[0], "--bind-to", "core", "-n", "1"]
        count = "import os; print(len(os.sched_getaffinity(0)))"
        found = launch([*bound, sys.executable, "-c", count])
        if found.code != 0:
            raise unittest.SkipTest("mpirun cannot bind here")
        cores = int(found.stdout)
        result = start(self.path("out"), "--dry-run", "--threads", cores + 1, prefix=bound)
        self.assertEqual(result.code, 0, result)
        self.assertRegex(result.stderr, "1 rank on 1 node, %d threads per rank on %d core" % (cores + 1, cores))
        self.assertIn("a rank runs %d threads on the %d core" % (cores + 1, cores), result.stderr)

    def test_output_that_nodes_do_not_share(self):
        two_nodes = helpers.node_launcher(2, self.folder)
        private = self.path("private")
        os.mkdir(private)
        shared, own = self.path("out"), os.path.join(private, "out")
        result = start(shared, prefix=two_nodes)
        self.assertEqual(result.code, 0, result)
        self.assertIn("2 ranks on 2 nodes", result.stderr)
        expected = helpers.weights(helpers.quantize(self.path("one"), "--bits", 3, "--method", "rtn", sequences=2,
                                                    length=32, ranks=0))
        self.assertEqual(helpers.weights(shared), expected)

        result = start(own, prefix=two_nodes, SNRQ_TEST_PRIVATE=private)
        self.assertEqual(result.code, helpers.CANNOT_WRITE, result)
        self.assertIn(own + ": expected the directory that rank 0 works in, found another one on node node2", result.stderr)
        self.assertEqual((helpers.weights(own), helpers.manifest(own)), ({}, []))
        self.assertNotIn("snrq.lock", os.listdir(own))
        self.assertEqual(start(own, prefix=two_nodes).code, 0)
        self.assertEqual(helpers.weights(own), expected)

    def test_plan_for_a_larger_machine(self):
        here = json.loads(start(self.path("out"), "--dry-run", "--json").stdout)
        there = json.loads(start(self.path("out"), "--dry-run", "--json", "--plan-ranks", 8, "--plan-nodes", 2).stdout)
        self.assertEqual((here["ranks"], here["nodes"], here["ranks_per_node"]), (1, 1, 1))
        self.assertEqual((there["ranks"], there["nodes"], there["ranks_per_node"]), (8, 2, 4))
        self.assertLess(there["rank_bytes"], here["rank_bytes"])
        for plan in here, there:
            self.assertGreater(plan["seconds"], 0)
            self.assertAlmostEqual(plan["node_bytes"], plan["ranks_per_node"] * plan["rank_bytes"] +
                                   plan["shared_bytes"])
        self.check_refused(start(self.path("out"), "--plan-ranks", 8), "need --dry-run")

    def check_as_the_run(self, out, *more):
        """A dry run that is refused as the run is: the same exit code and message, and nothing is changed."""
        def contents():
            return {name: helpers.sha256(os.path.join(out, name)) for name in os.listdir(out)}

        def last_line(result):
            """Times and ages go on."""
            said = [line for line in result.stderr.splitlines() if line.startswith("snrq: ")][-1]
            return re.sub(r"\d+ seconds ago", "N seconds ago", said)
        before = contents()
        for ranks in 0, 2:
            dry = start(out, "--dry-run", *more, ranks=ranks)
            self.assertEqual(contents(), before)
        run = start(out, *more, ranks=2)
        self.assertNotEqual(run.code, 0)
        self.assertEqual((dry.code, last_line(dry)), (run.code, last_line(run)))
        return dry

    def test_dry_run_says_what_would_become_of_the_output(self):
        out = self.path("out")
        dry = start(out, "--dry-run", "--json")
        self.assertEqual((dry.code, dry.json()["output"]), (0, {"state": "new", "committed": 0}))
        self.assertIn("the run would start", dry.stderr)
        self.assertFalse(os.path.exists(out))

        self.assertEqual(start(out).code, 0)
        dry = start(out, "--dry-run", "--json")
        self.assertEqual((dry.code, dry.json()["output"]), (0, {"state": "complete", "committed": 6}))
        self.assertIn("is complete already", dry.stderr)

        helpers.drop_records(out, 3)
        dry = start(out, "--dry-run", "--json", ranks=2)
        self.assertEqual((dry.code, dry.json()["output"]), (0, {"state": "unfinished", "committed": 4}))
        self.assertIn("would resume after block 4 of 6", dry.stderr)

    def test_dry_run_refuses_what_the_run_would_refuse(self):
        complete = self.path("complete")
        self.assertEqual(start(complete).code, 0)

        def copy(name):
            return shutil.copytree(complete, self.path(name))
        result = self.check_as_the_run(copy("options"), "--bits", 4)
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("options.bits", result.stderr)

        changed = copy("damaged")
        os.truncate(os.path.join(changed, "block-00002.h5"), 1000)
        self.assertEqual(self.check_as_the_run(changed).code, helpers.BAD_DATA)
        changed = copy("record")
        helpers.flip_bit(os.path.join(changed, "manifest.jsonl"), 10)
        self.assertEqual(self.check_as_the_run(changed).code, helpers.BAD_DATA)

        foreign = self.path("foreign")
        os.mkdir(foreign)
        helpers.write_ids(os.path.join(foreign, "thesis.tex"), [1])
        self.assertEqual(self.check_as_the_run(foreign).code, helpers.CANNOT_WRITE)

        locked = copy("locked")
        helpers.drop_records(locked, 2)
        holder = {"heartbeat": int(time.time()), "host": "elsewhere", "job": "42", "pid": 7, "process": 0, "started": 1}
        with open(os.path.join(locked, "snrq.lock"), "w") as f:
            json.dump(holder, f)
        result = self.check_as_the_run(locked)
        self.assertEqual(result.code, helpers.CANNOT_WRITE, result)
        self.assertIn("in use by process 7 on elsewhere", result.stderr)
        self.assertEqual(start(locked, "--dry-run", "--force-unlock").code, 0)
        self.assertIn("snrq.lock", os.listdir(locked))

    def test_dry_run_notices_another_model(self):
        out = self.path("out")
        model = helpers.copy_model(self.path("model"))
        words = [model if word == helpers.MODEL else word for word in arguments(out)]
        helpers.succeed(*words)
        weights = os.path.join(model, next(name for name in os.listdir(model) if name.endswith(".safetensors")))
        os.chmod(weights, 0o644)
        helpers.flip_bit(weights, -8)
        dry, run = helpers.run(*words, "--dry-run"), helpers.run(*words)
        self.assertEqual((dry.code, dry.stderr.splitlines()[-1]), (run.code, run.stderr.splitlines()[-1]))
        self.assertEqual(run.code, helpers.USAGE, run)
        self.assertIn("fingerprint", dry.stderr)

    def test_exports_that_the_plan_promises(self):
        """What the plan says of settings is what `inspect` finds in the files; a better size of groups is better."""
        for number, more in enumerate((("--group-size", 100), ("--group-size", 48), ("--group-size", 64),
                                       ("--bits", 5, "--group-size", 96), ("--bits", 8, "--asymmetric"),
                                       ("--group-size", "channel"), ("--scale-type", "bf16"),
                                       ("--method", "gptq", "--groups", "permuted", "--group-size", 32))):
            with self.subTest(more=more):
                out = self.path(str(number))
                plan = start(out, "--dry-run", "--json", *more).json()
                self.assertEqual(start(out, *more).code, 0)
                found = helpers.succeed("inspect", out, "--json").json()["exports"]
                scales = "bf16" in more
                self.assertEqual([(row["format"], row["possible"] or scales) for row in plan["exports"]],
                                 [(row["format"], row["possible"] or scales) for row in found])
                for row in plan["exports"]:
                    self.assertTrue(row["possible"] or row["why"], row)
                better = plan["better_group_size"]
                if better:
                    other = helpers.with_options([str(word) for word in more], "--group-size", better)
                    again = start(self.path("other"), "--dry-run", "--json", *other).json()
                    self.assertGreater(sum(row["possible"] for row in again["exports"]),
                                       sum(row["possible"] for row in plan["exports"]))
        self.assertIn("with --group-size", start(self.path("other"), "--dry-run", "--group-size", 100).stderr)

    def test_predicted_memory(self):
        """Of a run large enough that its data count, not its libraries."""
        out = self.path("out")
        more = "--sequences 256 --length 128 --method gptq".split()
        result = start(out, *more, ranks=2)
        self.assertEqual(result.code, 0, result)
        predicted = float(re.search(r"about (\d+) MB per rank", result.stderr).group(1))
        measured = float(re.search(r"peak memory (\d+) MB per rank", result.stderr).group(1))
        print("predicted %.0f MB, measured %.0f MB" % (predicted, measured))
        if not helpers.SANITIZED:
            self.assertLess(abs(predicted / measured - 1), 0.15)


if __name__ == "__main__":
    helpers.main()
