"""docs/tutorial.md: its commands work, one after the other in a shell, and print what stands there but for numbers."""
import os
import re
import shutil
import subprocess
import tempfile

import helpers

ROOT = os.path.dirname(os.path.dirname(helpers.HERE))
PAGE = os.path.join(ROOT, "docs", "tutorial.md")
BEGIN, END = "=== begins %d", "=== ends %d with %s"
PROMPT, OMITTED = "    $ ", "    ..."


def steps(page):
    """The commands of a page, each with the lines that follow it as its output, in order."""
    found = []
    for line in page.split("\n"):
        if line.startswith(PROMPT):
            found.append((line[len(PROMPT):], []))
            inside = True
        elif not line.startswith("    "):
            inside = False
        elif found and inside and line.rstrip() != OMITTED:
            found[-1][1].append(line[4:])
    return found


def form(line):
    """A line without its numbers, times and widths, which differ from machine to machine."""
    return " ".join(re.sub(r"[-+]?\d[\d.:]*(e[-+]?\d+)?", "#", line).split())


def lacking(shown, printed):
    """Lines of the page that are not among those printed, in their order. `...` in a line stands for anything."""
    lines, begin, lack = [form(line) for line in printed], 0, []
    for line in shown:
        pattern = re.escape(form(line)).replace(re.escape("..."), ".*")
        found = [number for number in range(begin, len(lines)) if re.fullmatch(pattern, lines[number])]
        if found:
            begin = found[0] + 1
        else:
            lack.append(line)
    return lack


class Tutorial(helpers.Test):
    @classmethod
    def setUpClass(cls):
        """All commands in one shell, in a folder where nothing is but what a clone has."""
        super().setUpClass()
        with open(PAGE) as page:
            cls.steps = steps(page.read())
        folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, folder)
        for name in ("tests", "slurm", "docs"):
            os.symlink(os.path.join(ROOT, name), os.path.join(folder, name))
        script = []
        for number, (command, _) in enumerate(cls.steps):
            script += ["echo '%s'" % BEGIN % number, command, "echo '%s'" % END % (number, "'$?'")]
        environment = helpers.environment(1)
        environment["PATH"] = os.path.dirname(os.environ["SNRQ"]) + os.pathsep + environment["PATH"]
        done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
        cls.printed = done.stdout.decode(errors="replace")
        print(cls.printed)

    def output(self, number):
        """What a command printed, and its exit code."""
        found = re.search(r"^%s\n(.*?)^%s$" % (BEGIN % number, END % (number, r"(\d+)")), self.printed, re.MULTILINE | re.DOTALL)
        self.assertIsNotNone(found, "the shell ended before: " + self.steps[number][0])
        return found.group(1), int(found.group(2))

    def test_every_command_succeeds(self):
        self.assertGreater(len(self.steps), 10)
        for number, (command, _) in enumerate(self.steps):
            with self.subTest(command):
                printed, code = self.output(number)
                self.assertEqual(code, 0, printed)

    def test_the_page_shows_what_they_print(self):
        for number, (command, shown) in enumerate(self.steps):
            with self.subTest(command):
                printed = self.output(number)[0].split("\n")
                self.assertEqual(lacking(shown, printed), [], "these lines of the page are not in the output")

    def test_a_line_that_is_not_printed_is_noticed(self):
        self.assertEqual(lacking(["blocks 3 of 6", "done"], ["blocks      0 of 6", "other", "done"]), [])
        self.assertEqual(lacking(["blocks 3 of 6", "done"], ["blocks      0 of 6", "doing"]), ["done"])
        self.assertEqual(lacking(["done", "blocks ... 6"], ["blocks 0 of 6", "done"]), ["blocks ... 6"])


helpers.main()
