"""A run is finished by the version that began it, since another one would write other bytes."""
import os
import re

import helpers


class Versions(helpers.Test):
    def test_a_run_of_another_version_is_refused_and_left_alone(self):
        out = helpers.quantize(self.path("out"), ranks=0)
        with open(os.path.join(out, "snrq.json")) as f:
            text = f.read()
        older, found = re.subn(r'("version": )"[^"]+"', r'\1"0.1.0"', text)
        self.assertEqual(found, 1)
        with open(os.path.join(out, "snrq.json"), "w") as f:
            f.write(older)
        for name in ("manifest.jsonl", "status.json"):
            os.remove(os.path.join(out, name))
        before = sorted(os.listdir(out))
        words = ["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out, "--sequences", 4, "--length", 64]
        done = helpers.run(*words, ranks=0)
        self.assertEqual(done.code, helpers.USAGE, str(done))
        self.assertIn('version: the unfinished run has "0.1.0", this one "', done.stderr)
        self.assertEqual(sorted(os.listdir(out)), before)


helpers.main()
