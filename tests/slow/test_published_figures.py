"""Windows and tasks of a real model of 135 M parameters, next to transformers and lm-evaluation-harness (SNRQ_SHARED).

Skipped where SNRQ_SHARED does not have the model. Takes about 15 minutes of CPU time.
"""
import json
import os
import subprocess
import sys

import helpers
import test_protocols
import test_tasks


class PublishedFigures(helpers.Test):
    run_tasks = test_tasks.Tasks.run_tasks
    check_tasks = test_tasks.Reference.check
    check_windows = test_protocols.Figures.check

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        script = helpers.shared("data", "models", "smollm2", "expand.py")
        cls.model = os.path.join(helpers.temporary_folder(cls), "model")
        subprocess.run([sys.executable, script, cls.model], check=True)

    def test_windows(self):
        with open(helpers.shared("data", "reference", "perplexity", "SmolLM2.json"), encoding="utf-8") as f:
            expected = json.load(f)
        self.assertEqual(self.check_windows(self.model, expected, None, ranks=2, timeout=1200), 5)

    def test_tasks(self):
        count = [self.check_tasks(self.model, "SmolLM2", suffix, "tokenizer") for suffix in ("", "-corner")]
        self.assertEqual(count, [360, 29])


if __name__ == "__main__":
    helpers.main()
