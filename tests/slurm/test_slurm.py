"""Jobs in a real Slurm of this machine's own: two nodes, and what happens to jobs at night."""
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import helpers

SLURM = os.path.join(os.path.dirname(os.path.dirname(helpers.HERE)), "slurm")
OPTIONS = "--bits 3 --group-size 64 --regrid 1 --sequences 4 --length 64".split()
ONE_OF_EACH = ["--nodes=2", "--ntasks-per-node=1"]
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")


def free_ports(count):
    """The first of so many in a row, below those that the system gives away itself."""
    for first in random.sample(range(20000, 32000, count), 100):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("", port))
                return first
            except OSError:
                pass
    raise RuntimeError("no %d free ports in a row" % count)


def can_run():
    return all(shutil.which(tool) for tool in TOOLS) and os.geteuid() == 0


@helpers.unittest.skipUnless(can_run(), "needs root and " + ", ".join(TOOLS))
class Slurm(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.common = tempfile.mkdtemp(prefix="snrq-", dir="/tmp")  # short: the name of a socket begins with it
        cls.addClassCleanup(shutil.rmtree, cls.common, ignore_errors=True)
        cls.box = os.path.join(cls.common, "box")
        cls.port = free_ports(3)  # another Slurm on this machine may be one of these tests, too
        started = cls.in_box("start", 2, 4)
        cls.addClassCleanup(cls.in_box, "stop")
        if started.returncode != 0:
            raise RuntimeError(started.stderr)
        cls.environment = dict(helpers.environment(1), SLURM_CONF=os.path.join(cls.box, "slurm.conf"),
                               SNRQ=os.environ.get("SNRQ") or shutil.which("snrq"), SNRQ_BIND="none",
                               # Nodes share an address, to which the way leads through no interface but lo: Open MPI 5 asks
                               # the system for that way, unless it is told to compare addresses alone.
                               OMPI_MCA_reachable="weighted",
                               SNRQ_SITE=os.path.join(SLURM, "site.sh"))
        # Slurm looks at time limits every half minute. This job waits for its own beside the others: it is held.
        cls.long = os.path.join(cls.common, "long")
        cls.long_job = cls.submit(cls.long, ["--time=1", "--signal=B:USR1@55", "--ntasks-per-node=1"], OPTIONS)
        rank = cls.hold_after_block(cls.long_job, cls.long)
        cls.release = threading.Thread(target=cls.hold_until_asked, args=[rank], daemon=True)
        cls.release.start()
        cls.expected = helpers.weights(helpers.quantize(os.path.join(cls.common, "undisturbed"), *OPTIONS, ranks=1))

    @classmethod
    def hold_after_block(cls, job, out):
        """Stops rank 0, as soon as it has finished a block, until somebody sends SIGCONT, and returns its process."""
        limit = time.monotonic() + 90
        while not any("block" in record for record in helpers.manifest(out)):
            if time.monotonic() > limit:
                raise AssertionError("no block: %s\n%s" % (cls.slurm("scontrol", "show", "job", job), cls.log(out)))
            time.sleep(0.02)
        with open(os.path.join(out, "snrq.lock")) as f:
            rank = json.load(f)["pid"]
        os.kill(rank, signal.SIGSTOP)
        return rank

    @classmethod
    def hold_until_asked(cls, rank):
        """Not longer: Slurm kills a job soon after its time is up, whatever the tests are doing meanwhile."""
        limit = time.monotonic() + 90
        while time.monotonic() < limit:
            with open(cls.long + ".log") as f:
                if "asked to stop" in f.read():
                    break
            time.sleep(0.1)
        os.kill(rank, signal.SIGCONT)

    @classmethod
    def in_box(cls, verb, *words):
        return subprocess.run(["bash", os.path.join(SLURM, "box.sh"), verb, cls.box, *map(str, words)], timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if verb == "start" else None, check=False,
                              stdin=subprocess.DEVNULL, universal_newlines=True,
                              env=dict(os.environ, SNRQ_BOX_PORT=str(cls.port)))

    @classmethod
    def slurm(cls, *words, **more):
        """A job gets TMPDIR from here: each its own, where no other's mpirun removes its folders."""
        own = tempfile.mkdtemp(prefix="tmp-", dir=cls.common) if words[0] == "sbatch" else cls.common
        done = subprocess.run([str(word) for word in words], env=dict(cls.environment, TMPDIR=own, **more), timeout=60, check=False,
                              cwd=cls.common, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        if done.returncode != 0:
            raise AssertionError("%s\n%s" % (" ".join(map(str, words)), done.stdout))
        return done.stdout.strip()

    @classmethod
    def submit(cls, out, options, words, launcher="mpirun"):
        return cls.submit_script("quantize", out, options, [helpers.MODEL, helpers.CALIBRATION, out, *words], launcher)

    @classmethod
    def submit_script(cls, name, out, options, words, launcher):
        return cls.slurm("sbatch", "--parsable", "--output=%s.log" % out, *options,
                         os.path.join(SLURM, name + ".sbatch"), *words, SNRQ_LAUNCHER=launcher)

    def wait(self, job, what, condition, seconds=60):
        """Until the condition holds. A requeued job, which Slurm lets rest for two minutes, starts as soon as nothing is
        left of its last start, whose late reports Slurm would take for those of the new one, and not in the second in
        which the last start was ended: Slurm's nodes refuse that as `Job credential revoked`."""
        limit = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), limit, "%s: %s" % (what, self.slurm("scontrol", "show", "job", job)))
            if not self.has_processes(job) and "PENDING BeginTime" in self.slurm("squeue", "-h", "-t", "all", "-j", job, "-o", "%T %r"):
                time.sleep(1.1)
                self.slurm("scontrol", "update", "jobid=" + job, "StartTime=now")
            time.sleep(0.2)

    @staticmethod
    def has_processes(job):
        return subprocess.run(["pgrep", "-f", r"slurmstepd: \[%s\." % job], stdout=subprocess.DEVNULL,
                              check=False).returncode == 0

    def has_ended(self, job):
        """For good: a job that is being requeued says for a moment that it has failed."""
        def ended():
            return self.state(job) <= {"COMPLETED", "FAILED", "CANCELLED"} and not self.has_processes(job)
        if not ended():
            return False
        time.sleep(0.5)
        return ended()

    def state(self, job):
        return set(self.slurm("squeue", "-h", "-t", "all", "-r", "-j", job, "-o", "%T").split())

    def wait_for_end(self, job, out, state="COMPLETED", seconds=60):
        self.wait(job, "did not end", lambda: self.has_ended(job), seconds)
        self.assertEqual(self.state(job), {state}, self.log(out))

    def start_and_hold(self, out):
        """A job that has finished a block and does not get on, until Slurm asks it to end: with SIGCONT, and SIGTERM."""
        job = self.submit(out, ONE_OF_EACH, OPTIONS, "srun")
        self.hold_after_block(job, out)
        return job

    @staticmethod
    def log(out):
        try:
            with open(out + ".log") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def test_plain_run_on_two_nodes(self):
        for launcher in "mpirun", "srun":
            with self.subTest(launcher=launcher):
                out = self.path(launcher)
                self.wait_for_end(self.submit(out, ONE_OF_EACH, OPTIONS, launcher), out)
                self.assertEqual(helpers.weights(out), self.expected)
                self.assertIn("2 ranks on 2 nodes", self.log(out))

    def test_cancelled(self):
        out = self.path("out")
        job = self.start_and_hold(out)
        self.slurm("scancel", job)
        self.wait_for_end(job, out, "CANCELLED")
        self.assertNotIn("requeued", self.log(out))
        self.assertFalse(helpers.manifest(out)[-1].get("complete", False))
        self.wait_for_end(self.submit(out, [], OPTIONS), out)
        self.assertEqual(helpers.weights(out), self.expected)

    def test_evaluation(self):
        """The log has what `snrq evaluate --json` says here, to the last bit."""
        model, out, missing = os.path.join(self.common, "undisturbed"), self.path("evaluation"), self.path("missing")
        options = ["--sequences", 3, "--length", 64, "--reference", helpers.MODEL, "--json"]
        job = self.submit_script("evaluate", out, ONE_OF_EACH, [model, helpers.HELDOUT, *options], "srun")
        wrong = self.submit_script("evaluate", missing, [], [self.path("no-model"), helpers.HELDOUT], "mpirun")
        here = helpers.succeed("evaluate", model, "--text", helpers.HELDOUT, *options).json()
        self.wait_for_end(job, out)
        said = [line for line in self.log(out).splitlines() if line.startswith("{")]
        self.assertEqual(len(said), 1, self.log(out))
        there = json.loads(said[0])
        for figure in "perplexity", "kl", "tokens":
            self.assertEqual(there[figure], here[figure])
        self.wait_for_end(wrong, missing, "FAILED")
        self.assertIn("exit code 66", self.log(missing))

    def check_comes_back(self, job, out):
        # What Slurm says until then may be that the first start has failed.
        self.wait(job, "did not come back", lambda: "start 1," in self.log(out))
        self.wait_for_end(job, out)
        for words in "replayed", "exit code 0":
            self.assertIn(words, self.log(out))
        self.assertEqual(helpers.weights(out), self.expected)

    def test_requeued_by_hand(self):
        out = self.path("out")
        job = self.start_and_hold(out)
        self.slurm("scontrol", "requeue", job)
        self.check_comes_back(job, out)

    def test_preempted(self):
        """By a job of a partition of higher priority that wants both nodes for itself."""
        out, urgent = self.path("out"), self.path("urgent")
        job = self.start_and_hold(out)
        other = self.slurm("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive",
                           "--output=%s.log" % urgent, "--wrap", "true")
        self.wait_for_end(other, urgent)
        self.assertIn("exit code 75", self.log(out))  # within the grace time: at a safe point
        self.check_comes_back(job, out)

    def test_node_killed(self):
        out = self.path("out")
        job = self.start_and_hold(out)
        self.in_box("kill-node", "box2")
        limit = time.monotonic() + 60
        while self.state(job) != {"PENDING"} and time.monotonic() < limit:
            time.sleep(0.2)
        self.in_box("start-node", "box2")
        while self.slurm("sinfo", "-h", "-p", "all", "-n", "box2", "-o", "%T") != "idle" and time.monotonic() < limit:
            time.sleep(0.2)
        self.wait_for_end(job, out)
        self.assertIn("replayed", self.log(out))
        self.assertEqual(helpers.weights(out), self.expected)

    def test_a_table_of_runs(self):
        """One run fails: the report has the others, and names it."""
        table, root = self.path("table.json"), self.path("root")
        with open(table, "w") as f:
            json.dump({"title": "Two", "models": {"bundled": "model", "none": "no-such-model"},
                       "options": {"calibration": "calibration.txt", "sequences": 2, "length": 32},
                       "runs": [{"bits": [2, 3], "method": "rtn"}],
                       "evaluations": {"held-out": {"text": "heldout.txt", "length": 64, "sequences": 4}},
                       "figures": [{"name": "perplexity", "evaluation": "held-out", "value": "perplexity"}]}, f)
        said = self.slurm("bash", os.path.join(SLURM, "reproduce"), table, root, "--data", helpers.DATA,
                          "--ntasks-per-node=1", "--output=%s/%%a.log" % root)
        job = said.rsplit("report job ", 1)[1].split()[0]
        self.wait(job, "no report", lambda: self.state(job) <= {"COMPLETED", "FAILED"})
        with open(os.path.join(root, "report", "quality.tsv")) as f:
            rows = [line.rstrip("\n").split("\t") for line in f][1:]
        self.assertEqual([row[:4] for row in rows], [["bundled", "2", "rtn", "1 of 1"], ["bundled", "3", "rtn", "1 of 1"],
                                                     ["none", "2", "rtn", "0 of 1"], ["none", "3", "rtn", "0 of 1"]])
        self.assertGreater(float(rows[0][4]), float(rows[1][4]))  # fewer bits, more perplexity
        self.assertGreater(float(rows[1][4]), 1)
        with open(os.path.join(root, "report", "missing.tsv")) as f:
            self.assertIn("none_bits-2_rtn\tfailed: quantize, exit code 66; not started; no held-out\n", f.read())

    def test_what_submit_asks_for(self):
        def asked(**site):
            words = self.slurm("bash", os.path.join(SLURM, "submit"), "--print", helpers.MODEL, helpers.CALIBRATION,
                               "out", *OPTIONS, SNRQ_RANKS_PER_NODE="2", SNRQ_CPUS_PER_RANK="1", **site)
            return dict(word.lstrip("-").split("=") for word in words.split() if word.startswith("--") and "=" in word)
        plain = asked()
        self.assertEqual((plain["nodes"], plain["ntasks-per-node"]), ("1", "2"))
        self.assertTrue(150 < int(plain["mem"].rstrip("M")) < 300)
        self.assertTrue(10 <= int(plain["time"]) < 20)
        with self.assertRaisesRegex(AssertionError, "take fewer --sequences"):
            asked(SNRQ_NODE_MB="120", SNRQ_MOST_NODES="2")

    def test_a_job_without_progress_gives_up(self):
        """The last of three restarts that found the same blocks."""
        out = self.path("out")
        os.mkdir(out)
        with open(os.path.join(out, "slurm.restarts"), "w") as f:
            f.write("0 2\n")
        done = self.check_progress(out, 3)
        self.assertEqual(done.returncode, 70)
        self.assertIn("no block was finished in 3 restarts", done.stderr)

    def test_a_job_whose_ranks_never_start_gives_up(self):
        """mpirun ends with exit code 1 before there is a directory to count blocks in."""
        for restarts, code in (0, 0), (2, 0), (3, 70):
            done = self.check_progress(self.path("never-made"), restarts)
            self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn("was not even made in 3 restarts", done.stderr)

    def check_progress(self, out, restarts):
        script = ("here=%s; . $here/job.sh; . $here/site.sh; SLURM_RESTART_COUNT=%d; check_progress %s" %
                  (SLURM, restarts, out))
        return subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=self.environment, check=False, timeout=20,
                              stderr=subprocess.PIPE, universal_newlines=True)

    def test_zz_time_limit(self):
        """The last by name: this job ran beside all others."""
        self.release.join(timeout=90)
        self.wait_for_end(self.long_job, self.long)
        log = self.log(self.long)
        for words in ("asked to stop", "exit code 75", "requeued", "start 1,", "replayed", "exit code 0"):
            self.assertIn(words, log)
        self.assertEqual(helpers.weights(self.long), self.expected)


if __name__ == "__main__":
    helpers.main()
