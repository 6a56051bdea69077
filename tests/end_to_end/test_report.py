"""snrq report OUT: its tables say what the log and the manifest say, and the page needs no other file."""
import base64
import csv
import json
import os
import re
import shutil
import statistics
import subprocess
import xml.etree.ElementTree

import helpers

KINDS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj"]
UNITS = ["self_attn.q_proj + k_proj + v_proj", "self_attn.o_proj", "mlp.gate_proj + up_proj", "mlp.down_proj"]
PICTURES = ["phases", "objective", "output-error", "model-error", "alpha", "largest-activation", "mismatch-share",
            "mismatch-norm", "mismatch-mean", "rounding-time"]


def table(folder, name):
    with open(os.path.join(folder, name + ".tsv"), newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


class Report(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = helpers.temporary_folder(cls)
        cls.out, cls.report = os.path.join(folder, "out"), os.path.join(folder, "report")
        helpers.quantize(cls.out, *"--bits 3 --group-size 64 --method snrq --alpha chained".split(), ranks=2)
        cls.printed = helpers.succeed("report", cls.out, "-o", cls.report).stdout
        cls.modules = [m for record in helpers.manifest(cls.out) for m in record.get("modules", [])]
        with open(os.path.join(cls.out, "run.jsonl")) as f:
            cls.events = [json.loads(line) for line in f]

    def of_kind(self, kind):
        return [m for m in self.modules if m["name"].split(".", 3)[3] == kind]

    def read(self, name):
        with open(os.path.join(self.report, name)) as f:
            return f.read()

    def test_quality_by_kind(self):
        rows = table(self.report, "kinds")
        self.assertEqual([row["kind of module"] for row in rows], KINDS)
        for row in rows:
            modules = self.of_kind(row["kind of module"])
            self.assertEqual(int(row["modules"]), 6)
            for column, key, of, scale in (("objective", "objective", statistics.mean, 1), ("alpha", "alpha", statistics.mean, 1),
                                           ("output error %", "output_error", statistics.mean, 100),
                                           ("largest output %", "output_error", max, 100),
                                           ("model error %", "model_error", statistics.mean, 100),
                                           ("largest model %", "model_error", max, 100),
                                           ("largest activation", "largest_activation", max, 1)):
                expected = scale * of([m[key] for m in modules])
                self.assertAlmostEqual(float(row[column]), expected, delta=1e-8 * expected)

    def test_figures_by_layer(self):
        for name, key, scale in (("objective", "objective", 1), ("output-error", "output_error", 100), ("alpha", "alpha", 1)):
            rows = table(self.report, name)
            self.assertEqual([row["layer"] for row in rows], list("012345"))
            for kind in KINDS:
                for row, module in zip(rows, self.of_kind(kind)):
                    self.assertAlmostEqual(float(row[kind]), scale * module[key], delta=1e-8 * scale * module[key])

    def test_mismatch(self):
        """No mismatch where both streams read the embeddings; later there is one, and the norms fit each other."""
        share, norm = table(self.report, "mismatch-share"), table(self.report, "mismatch-norm")
        self.assertEqual(float(norm[0][UNITS[0]]), 0)
        for unit in UNITS:
            self.assertGreater(min(float(row[unit]) for row in norm[1:]), 0)
        units = [unit for event in self.events if event["event"] == "stage" for unit in event["units"]]
        self.assertEqual(len(units), 6 * 4)
        down = [unit for unit in units if unit["modules"][0].endswith("down_proj")]
        for row, unit in zip(share, down):
            self.assertAlmostEqual(float(row["mlp.down_proj"]), 100 * unit["mismatch_norm"] / unit["input_norm"], places=6)

    def test_rounding_times_are_parts_of_the_run(self):
        rows = table(self.report, "rounding")
        self.assertEqual([row["modules"] for row in rows], UNITS)
        seconds = {row["phase"]: float(row["mean s"]) for row in table(self.report, "phases-by-rank")}
        # Means over six layers and a rank; the mean over ranks differs by what ranks wait for each other.
        for phase in ("factor", "grid", "search"):
            self.assertAlmostEqual(6 * sum(float(row[phase + " ms"]) for row in rows) / 1000, seconds[phase],
                                   delta=0.05 + 0.1 * seconds[phase])
        for row in rows:
            self.assertAlmostEqual(float(row["rounding ms"]), sum(float(row[p + " ms"]) for p in ("factor", "grid", "search")), places=5)

    def test_layer_groups(self):
        """A row for each group: its blocks, its share of the time, the errors of its modules."""
        out, report = self.path("groups"), self.path("report")
        helpers.quantize(out, *"--bits 3 --group-size 64 --method snrq --layer-groups 2".split(), ranks=2)
        helpers.succeed("report", out, "-o", report)
        rows = table(report, "layer-groups")
        with open(os.path.join(out, "run.jsonl")) as f:
            steps = [e for e in map(json.loads, f) if e["event"] == "stage"]
        modules = [m for record in helpers.manifest(out) for m in record.get("modules", [])]
        self.assertEqual([(row["first block"], row["last block"], row["committed"]) for row in rows],
                         [("1", "3", "3"), ("4", "6", "3")])
        for row in rows:
            blocks = range(int(row["first block"]) - 1, int(row["last block"]))
            errors = [100 * m["model_error"] for m in modules if int(m["name"].split(".")[2]) in blocks]
            self.assertAlmostEqual(float(row["seconds"]), sum(e["seconds"] for e in steps if e["block"] in blocks), delta=0.06)
            self.assertAlmostEqual(float(row["model error %"]), statistics.mean(errors), delta=0.006)
            self.assertAlmostEqual(float(row["largest model %"]), max(errors), delta=0.006)
        self.assertFalse(os.path.exists(os.path.join(self.report, "layer-groups.tsv")))

    def test_every_module_is_listed(self):
        self.assertEqual([row["module"] for row in table(self.report, "modules")], [m["name"] for m in self.modules])
        self.assertNotIn("model.layers.3.mlp.up_proj", self.printed)  # long tables are not printed
        self.assertIn("model.layers.3.mlp.up_proj", self.read("report.txt"))

    def test_settings(self):
        settings = {row["setting"]: row["value"] for row in table(self.report, "settings")}
        self.assertEqual((settings["method"], settings["bits"], settings["beam"], settings["state"], settings["ranks"]),
                         ("snrq", "3", "1", "complete", "2"))

    def test_page(self):
        """One file: no link leads out of it; the pictures in it are SVG of their own."""
        page = self.read("report.html")
        self.assertEqual(re.findall(r'(?:src|href)="(?!data:)[^"]*"', page), [])
        pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page)
        if not shutil.which("gnuplot"):
            self.assertEqual(pictures, [])
            self.assertIn("gnuplot is not installed", page)
            return
        self.assertEqual(len(pictures), len(PICTURES))
        for picture, name in zip(pictures, PICTURES):
            data = base64.b64decode(picture, validate=True)
            self.assertTrue(xml.etree.ElementTree.fromstring(data).tag.endswith("svg"))
            with open(os.path.join(self.report, name + ".svg"), "rb") as f:
                self.assertEqual(f.read(), data)

    def test_without_gnuplot(self):
        """Tables only, and a word about it; pictures of an earlier report do not stay."""
        shutil.copytree(self.report, self.path("again"))
        words = helpers.command(["report", self.out, "-o", self.path("again")], ranks=0)
        done = subprocess.run([os.path.abspath(words[0]), *words[1:]], env=dict(helpers.environment(1), PATH=self.folder), check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("gnuplot is not installed", done.stderr)
        names = os.listdir(self.path("again"))
        self.assertEqual([name for name in names if name.endswith(".svg")], [])
        self.assertIn("alpha.tsv", names)
        with open(self.path("again", "report.html")) as f:
            page = f.read()
        self.assertNotIn("<img", page)
        self.assertIn("gnuplot is not installed", page)

    def test_an_unfinished_run(self):
        out = shutil.copytree(self.out, self.path("out"))
        helpers.drop_records(out, 3)
        said = helpers.succeed("report", out).stdout
        self.assertIn("UNFINISHED: 4 of 6 blocks", said)

    def test_a_run_without_figures_in_its_log(self):
        """As of version 0.1.0, or with a log that is lost."""
        out = shutil.copytree(self.out, self.path("out"))
        os.remove(os.path.join(out, "run.jsonl"))
        helpers.succeed("report", out, "-o", self.path("report"))
        self.assertEqual(table(self.path("report"), "rounding"), [])
        self.assertEqual(len(table(self.path("report"), "objective")), 6)
        self.assertFalse(os.path.exists(self.path("report", "mismatch-norm.tsv")))

    def test_what_is_refused(self):
        self.assertEqual(helpers.run("report", helpers.MODEL).code, helpers.NO_INPUT)
        self.assertEqual(helpers.run("report", self.path("none")).code, helpers.NO_INPUT)
        before = sorted(os.listdir(self.out))
        self.assertEqual(helpers.run("report", self.out, "-o", self.out).code, helpers.USAGE)
        self.assertEqual(sorted(os.listdir(self.out)), before)


if __name__ == "__main__":
    helpers.main()
