"""Tables of runs: slurm/reproduce --local and snrq report ROOT; killed at random, the same tables; the shipped tables."""
import csv
import glob
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import time

import helpers

SOURCE = os.path.dirname(os.path.dirname(helpers.HERE))
SCRIPT = os.path.join(SOURCE, "slurm", "reproduce")
SHIPPED = sorted(glob.glob(os.path.join(SOURCE, "docs", "reproduction", "*.json")))
TABLE = {
    "title": "A table for tests",
    "models": {"bundled": "model"},
    "options": {"baseline-grid": True, "calibration": "calibration.txt", "sequences": 2, "length": 32},
    "runs": [{"method": "fp"}, {"bits": [2, 3], "group-size": 64, "method": "snrq", "seed": [0, 1]}],
    "evaluations": {"held-out": {"text": "heldout.txt", "length": 64, "sequences": 4}},
    "figures": [{"name": "perplexity", "evaluation": "held-out", "value": "perplexity", "digits": 3}],
}
RUNS = ["bundled_fp"] + ["bundled_bits-%d_group-size-64_snrq_seed-%d" % (bits, seed) for bits in (2, 3) for seed in (0, 1)]


def table_file(path, **changed):
    with open(path, "w") as f:
        json.dump({**TABLE, **changed}, f)
    return path


def words(table, root, *more):
    return ["bash", SCRIPT, "--local", table, root, "--data", helpers.DATA, "--ranks", "1", *more]


def environment():
    return dict(helpers.environment(1), SNRQ=os.path.abspath(helpers.command([], 0)[0]), SNRQ_SITE=os.path.join(SOURCE, "slurm", "site.sh"))


def reproduce(table, root, code=0):
    done = subprocess.run(words(table, root), env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, timeout=300, check=False)
    if done.returncode != code:
        raise AssertionError("exit code %d\n%s" % (done.returncode, done.stdout))
    return done.stdout


def rows_of(folder, name):
    with open(os.path.join(folder, name + ".tsv"), newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


class Reproduce(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = helpers.temporary_folder(cls)
        cls.table, cls.root = os.path.join(folder, "table.json"), os.path.join(folder, "root")
        cls.said = reproduce(table_file(cls.table), cls.root)
        with open(os.path.join(cls.root, "report", "quality.tsv")) as f:
            cls.quality = f.read()

    def answers(self):
        found = {}
        for run in RUNS:
            with open(os.path.join(self.root, run, "held-out.json")) as f:
                found[run] = json.load(f)["perplexity"]
        return found

    def lay_out(self, **changed):
        """A copy of the finished table whose file is another one, and its report."""
        root = shutil.copytree(self.root, self.path("root"))
        table_file(os.path.join(root, "table.json"), **changed)
        helpers.succeed("report", root, "-o", self.path("report"))
        return rows_of(self.path("report"), "quality")

    def test_rows_are_means_over_seeds(self):
        answers = self.answers()
        rows = rows_of(os.path.join(self.root, "report"), "quality")
        self.assertEqual([(row["method"], row["bits"], row["runs"]) for row in rows],
                         [("fp", "-", "1 of 1"), ("snrq", "2", "2 of 2"), ("snrq", "3", "2 of 2")])
        for row, runs in zip(rows, (RUNS[:1], RUNS[1:3], RUNS[3:])):
            values = [answers[run] for run in runs]
            self.assertAlmostEqual(float(row["perplexity"]), statistics.mean(values), delta=1e-8 * values[0])
            self.assertEqual(int(row["perplexity_n"]), len(values))
            if len(values) > 1:
                self.assertAlmostEqual(float(row["perplexity_sd"]), statistics.stdev(values), places=6)
        self.assertGreater(float(rows[1]["perplexity"]), float(rows[2]["perplexity"]))
        self.assertIn("All 5 runs are there.", self.said)
        self.assertIn("In all rows: group-size 64.", self.said)
        self.assertIn("the options of all rows are the same", self.said)

    def test_what_is_there_is_not_made_again(self):
        files = [os.path.join(self.root, run, name) for run in RUNS for name in ("held-out.json", "out/manifest.jsonl")
                 if run != RUNS[0] or name == "held-out.json"]
        before = [os.stat(file) for file in files]
        reproduce(self.table, self.root)
        after = [os.stat(file) for file in files]
        self.assertEqual([(s.st_ino, s.st_mtime_ns) for s in before], [(s.st_ino, s.st_mtime_ns) for s in after])

    def test_killed_at_random(self):
        """Whatever is killed, the same command ends with the same table."""
        root, seed = self.path("root"), random.randrange(1 << 30)
        print("seed %d" % seed)
        chance = random.Random(seed)
        for _ in range(4):
            process = subprocess.Popen(words(self.table, root), env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, start_new_session=True)
            time.sleep(chance.uniform(0.1, 3))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reproduce(self.table, root)
        with open(os.path.join(root, "report", "quality.tsv")) as f:
            self.assertEqual(f.read(), self.quality)
        for run in RUNS[1:]:
            self.assertEqual(helpers.weights(os.path.join(root, run, "out")), helpers.weights(os.path.join(self.root, run, "out")))

    def test_other_options(self):
        """Of an evaluation: it is made again. Of a quantization: refused, and nothing is changed."""
        root = shutil.copytree(self.root, self.path("root"))
        other = {"held-out": {"text": "heldout.txt", "length": 64, "sequences": 3}}
        arguments = ["-o", root, "--data", helpers.DATA]
        helpers.succeed("runs", table_file(self.path("table.json"), evaluations=other), *arguments)
        self.assertEqual([run for run in RUNS if os.path.exists(os.path.join(root, run, "held-out.json"))], [])
        result = helpers.run("runs", table_file(self.path("table.json"), options={**TABLE["options"], "length": 64}), *arguments)
        self.assertEqual(result.code, helpers.USAGE)
        self.assertIn("others now", result.stderr)
        self.assertEqual(helpers.weights(os.path.join(root, RUNS[1], "out")), helpers.weights(os.path.join(self.root, RUNS[1], "out")))

    def test_options_are_checked_before_work(self):
        table = table_file(self.path("table.json"), options={**TABLE["options"], "alhpa": "corr"})
        result = helpers.run("runs", table, "-o", self.path("root"), "--data", helpers.DATA)
        self.assertEqual(result.code, helpers.USAGE)
        self.assertIn("--alhpa", result.stderr)

    def test_failed_and_missing_runs_are_named(self):
        """A run that fails does not keep others from being made."""
        table = table_file(self.path("table.json"), models={"none": "no-such-model", "bundled": "model"}, runs=[{"method": "fp"}])
        said = reproduce(table, self.path("failing"), code=70)
        self.assertRegex(said, r"(?m)^none_fp +failed: evaluate held-out, exit code 66; no held-out$")
        self.assertIn("1 of 2 runs are there", said)
        rows = self.lay_out(runs=TABLE["runs"] + [{"method": "rtn", "bits": 3}])
        self.assertEqual(rows[-1]["runs"], "0 of 1")
        missing = rows_of(self.path("report"), "missing")
        self.assertEqual([(row["run"], row["what is missing"]) for row in missing], [("bundled_rtn_bits-3", "not started; no held-out")])

    def test_published_figures(self):
        """A star where our mean is further from the published one than the published deviation and rounding."""
        mean = float(rows_of(os.path.join(self.root, "report"), "quality")[1]["perplexity"])
        for offset, sd, star in ((0.0, 0.01, False), (0.02, 0.01, True), (-0.02, 0.01, True), (0.009, 0.01, False), (5, None, False)):
            with self.subTest(offset=offset, sd=sd):
                figure = [mean + offset] + ([] if sd is None else [sd])
                published = {"source": "here", "rows": [{"model": "bundled", "method": "snrq", "bits": 2, "group-size": "64",
                                                         "perplexity": figure, "seconds": 7}]}
                row = self.lay_out(published=published)[1]
                self.assertAlmostEqual(float(row["perplexity published"]), figure[0], places=6)
                with open(self.path("report", "report.txt")) as f:
                    text = f.read()
                self.assertEqual(" * " in text, star)
                self.assertIn("Published: here", text)
                self.assertNotIn("belong to no row", text)
                self.assertEqual(float(rows_of(self.path("report"), "cost")[0]["seconds published"]), 7)
                shutil.rmtree(self.path("root"))

    def test_options_that_differ_are_named(self):
        table = table_file(self.path("table.json"), options={k: v for k, v in TABLE["options"].items() if k != "baseline-grid"},
                           runs=[{"method": ["rtn", "snrq"], "bits": 3, "group-size": 64}])
        said = reproduce(table, self.path("root"))
        self.assertIn("grid minmax (rtn), hessian (snrq)", said)
        self.assertIn("refine 0 (rtn), 2 (snrq)", said)
        self.assertNotIn("bits 3 (", said)

    def test_a_damaged_answer_is_said_and_no_figure(self):
        root = shutil.copytree(self.root, self.path("root"))
        with open(os.path.join(root, RUNS[0], "held-out.json"), "w") as f:
            f.write('{"perplexity": ')
        said = helpers.succeed("report", root).stdout
        self.assertRegex(said, r"(?m)^bundled_fp +held-out cannot be read: ")


class Shipped(helpers.Test):
    def test_tables_can_be_read_and_figures_have_rows(self):
        self.assertEqual([os.path.basename(path)[:2] for path in SHIPPED][:12], ["%02d" % i for i in range(1, 13)])
        for path in SHIPPED:
            with self.subTest(table=os.path.basename(path)):
                root = self.path(os.path.basename(path))
                os.mkdir(root)
                shutil.copy(path, os.path.join(root, "table.json"))
                said = helpers.succeed("report", root).stdout
                self.assertIn("0 of ", said)
                self.assertNotIn("belong to no row", said)

    def test_options_of_tables(self):
        """Every option is one of the program's, and has an effect."""
        has_tasks = "--task-dir" in helpers.succeed("evaluate", "--help").stdout
        for path in SHIPPED:
            with open(path) as f:
                needs_tasks = "task-dir" in f.read()
            if has_tasks or not needs_tasks:
                with self.subTest(table=os.path.basename(path)):
                    helpers.succeed("runs", path, "-o", self.path(os.path.basename(path)), "--data", self.folder)

    def test_figures_are_those_of_the_published_table(self):
        rows = {}
        for path in SHIPPED:
            with open(path) as f:
                for row in json.load(f).get("published", {}).get("rows", []):
                    key = (row["model"], str(row.get("bits", 16)), str(row.get("group-size", "-")),
                           "ksnrq:%d" % row["beam"] if "beam" in row else row["method"])
                    rows.setdefault(key, {}).update(row)
        with open(helpers.shared("data", "paper", "tables.tsv")) as f:
            lines = [line.rstrip("\n").split("\t") for line in f if line.strip() and not line.startswith("#")]
        self.assertGreater(len(lines), 30)
        for line in lines:
            row = rows[tuple(line[:4])]
            for name, at in (("wikitext2", 4), ("c4", 6), ("accuracy", 8), ("seconds", 10)):
                expected = [float(word) for word in line[at:at + 2] if word != "-"]
                self.assertEqual(row.get(name, []), expected, (line, name))


if __name__ == "__main__":
    helpers.main()
