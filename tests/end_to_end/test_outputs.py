"""Where output goes: files, links, pipes and devices that a user names, and answers that cannot be written.

As root, what stands for devices here is made for the test in a mount namespace of its own.
"""
import json
import os
import shutil
import stat
import subprocess
import threading
import unittest

import numpy as np

import helpers
from helpers import CANNOT_WRITE, IO_ERROR, USAGE

EVALUATE = ["evaluate", helpers.MODEL, "--text", helpers.HELDOUT, "--length", 32, "--sequences", 2]


def write_case(path):
    """A layer for `round`: W [8, 16] and a definite H."""
    x = np.random.default_rng(3).standard_normal((64, 16)).astype("<f4")
    w = np.random.default_rng(4).standard_normal((8, 16)).astype("<f4")
    zero = np.zeros((16, 16), "<f4")
    helpers.write_safetensors(path, {"W": ("F32", [8, 16], w.tobytes()), "H": ("F32", [16, 16], (x.T @ x).tobytes()),
                                     "D": ("F32", [16, 16], zero.tobytes()), "E": ("F32", [16, 16], zero.tobytes())})
    return path


class Outputs(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.common = helpers.temporary_folder(cls)
        cls.text = os.path.join(cls.common, "text.txt")
        with open(helpers.HELDOUT, "rb") as f, open(cls.text, "wb") as g:
            g.write(f.read(3000))
        cls.case = write_case(os.path.join(cls.common, "case.safetensors"))
        cls.ids = os.path.join(cls.common, "ids.i32")
        helpers.succeed("tokenize", helpers.MODEL, "--text", cls.text, "-o", cls.ids)
        # The commands that write a file that the user names: words without its name, the option for it.
        cls.commands = {"tokenize": (["tokenize", helpers.MODEL, "--text", cls.text], "-o"),
                        "decode": (["tokenize", helpers.MODEL, "--decode", cls.ids], "-o"),
                        "evaluate": (EVALUATE, "--logprobs"),
                        "round": (["round", cls.case, "--bits", 3, "--group-size", 8], "-o")}
        cls.expected = {}
        for name, (words, option) in cls.commands.items():
            path = os.path.join(cls.common, name)
            helpers.succeed(*words, option, path)
            cls.expected[name] = cls.read(path)

    @staticmethod
    def read(path):
        with open(path, "rb") as f:
            return f.read()

    def each(self):
        for name, (words, option) in self.commands.items():
            with self.subTest(command=name):
                yield name, [*words, option], self.expected[name]

    def raw(self, *words, **how):
        """Bytes of standard output, and standard error."""
        done = subprocess.run(helpers.command(words, 0), env=helpers.environment(1), stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, timeout=60, check=False, **how)
        return done.returncode, done.stdout, done.stderr.decode()

    def test_standard_output(self):
        for name, words, expected in self.each():
            for target in "-", "/dev/stdout", "/proc/self/fd/1":
                code, out, said = self.raw(*words, target, stdout=subprocess.PIPE)
                self.assertEqual(code, 0, said)
                self.assertEqual(out, expected)
                self.assertNotEqual(said, "", "the answer belongs to standard error")

    def test_the_answer_as_json_goes_to_standard_error(self):
        code, out, said = self.raw(*EVALUATE, "--json", "--logprobs", "-", stdout=subprocess.PIPE)
        self.assertEqual((code, out), (0, self.expected["evaluate"]), said)
        self.assertIn("perplexity", json.loads(said.splitlines()[-1]))

    def test_standard_output_that_is_a_file(self):
        name = self.path("all")
        with open(name, "wb") as f:
            f.write(b"before")
            f.flush()
            for target in "/dev/stdout", name:
                self.assertEqual(self.raw("tokenize", helpers.MODEL, "--text", self.text, "-o", target, stdout=f)[0], 0)
        self.assertEqual(self.read(name), b"before" + 2 * self.expected["tokenize"])

    def test_a_pipe(self):
        for name, words, expected in self.each():
            pipe, found = self.path(name), []
            os.mkfifo(pipe)
            reader = threading.Thread(target=lambda: found.append(self.read(pipe)))
            reader.start()
            helpers.succeed(*words, pipe)
            reader.join(timeout=60)
            self.assertEqual(found, [expected])
            self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))

    def test_links(self):
        for name, words, expected in self.each():
            folder = self.path(name)
            os.mkdir(folder)
            old, new = os.path.join(folder, "old"), os.path.join(folder, "new")
            with open(old, "w") as f:
                f.write("old")
            os.chmod(old, 0o604)
            for target in old, new:
                os.symlink(os.path.basename(target), target + "-link")
                helpers.succeed(*words, target + "-link")
                self.assertTrue(os.path.islink(target + "-link"))
                self.assertEqual(self.read(target), expected)
            self.assertEqual(stat.S_IMODE(os.stat(old).st_mode), 0o604)
            self.assertEqual(sorted(os.listdir(folder)), ["new", "new-link", "old", "old-link"])

    def test_a_users_temporary_file_stays(self):
        for name, words, expected in self.each():
            with open(self.path(name + ".tmp"), "w") as f:
                f.write("precious")
            helpers.succeed(*words, self.path(name))
            self.assertEqual(self.read(self.path(name + ".tmp")), b"precious")

    def test_inputs_are_refused(self):
        model = shutil.copytree(helpers.MODEL, self.path("model"))
        files = {}
        for name, source in (("text", self.text), ("ids", self.ids), ("case", self.case)):
            files[name] = shutil.copy(source, self.path(name))
            os.link(files[name], self.path(name + "-hard"))
            os.symlink(name, self.path(name + "-soft"))
        before = {path: self.read(path) for path in [*files.values(), os.path.join(model, "tokenizer.json")]}
        cases = [(kind, [*words, option]) for kind, words, option in (
            ("text", ["tokenize", model, "--text", files["text"]], "-o"),
            ("ids", ["tokenize", model, "--decode", files["ids"]], "-o"),
            ("text", ["evaluate", model, "--text", files["text"], "--length", 32], "--logprobs"),
            ("text", ["tokenize", model, "--text", helpers.HELDOUT, "--text", files["text"]], "-o"),
            ("text", ["evaluate", model, "--text", helpers.HELDOUT, "--text", files["text"]], "--logprobs"),
            ("ids", ["evaluate", model, "--token-file", files["ids"], "--length", 32], "--logprobs"),
            ("case", ["round", files["case"]], "-o"))]
        for kind, words in cases:
            targets = [files[kind], files[kind] + "-hard", files[kind] + "-soft"]
            for target in targets + ([os.path.join(model, "tokenizer.json")] if kind != "case" else []):
                with self.subTest(command=words[0], target=os.path.basename(target)):
                    result = helpers.run(*words, target)
                    self.assertEqual(result.code, USAGE, result)
                    self.assertIn("is the same file as", result.stderr)
        for path, content in before.items():
            self.assertEqual(self.read(path), content, path)

    def test_outputs_are_tried_before_work(self):
        """The input is missing, too: what is said first is what was tried first."""
        os.mkdir(self.path("folder"))
        missing = self.path("missing")
        cases = [["tokenize", missing, "--text", missing, "-o"], ["evaluate", missing, "--text", missing, "--logprobs"],
                 ["round", missing, "-o"], ["quantize", missing, "--calibration", missing, "-o"],
                 ["export", missing, "--format", "gguf", "-o"]]
        for words in cases:
            for ranks in 0, 2:
                with self.subTest(command=words[0], ranks=ranks):
                    result = helpers.run(*words, self.path("none", "x"), ranks=ranks)
                    self.assertEqual(result.code, CANNOT_WRITE, result)
                    self.assertIn("there is no directory", result.stderr)
                    if words[0] not in ("quantize", "export"):
                        result = helpers.run(*words, self.path("folder"), ranks=ranks)
                        self.assertEqual(result.code, CANNOT_WRITE, result)
                        self.assertIn("found a directory", result.stderr)
        self.assertEqual(os.listdir(self.folder), ["folder"])

    def test_a_failed_command_leaves_nothing(self):
        for words in (["tokenize", helpers.MODEL, "--text", self.path("none"), "-o"],
                      ["evaluate", helpers.MODEL, "--text", self.path("none"), "--logprobs"],
                      ["round", self.path("none"), "-o"]):
            self.assertEqual(helpers.run(*words, self.path("x")).code, helpers.NO_INPUT)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_full_disk(self):
        with helpers.file_system(self.path("disk"), "size=4k") as disk:
            for name, words, _ in self.each():
                if name in ("tokenize", "round"):
                    with open(os.path.join(disk, "x"), "wb") as f:
                        f.write(b"old")
                    result = helpers.run(*words, os.path.join(disk, "x"))
                    self.assertEqual(result.code, IO_ERROR, result)
                    self.assertEqual(os.listdir(disk), ["x"])
                    self.assertEqual(self.read(os.path.join(disk, "x")), b"old")

    DEVICES = r"""
set -e
mount -t tmpfs -o mode=755 snrq-test "$1"
cd "$1"
mknod null c 1 3
mknod full c 1 7
ln -s /proc/self/fd/1 stdout
mkfifo pipe
shift
for device in null stdout pipe; do
    before=$(stat -c "%F %t %T %i" $device)
    if [ $device = pipe ]; then cat pipe >/dev/null & else (exit 0) & fi
    "$@" "$PWD/$device" >/dev/null
    wait $!
    [ "$before" = "$(stat -c "%F %t %T %i" $device)" ] || { echo "$device was replaced"; exit 9; }
done
code=0
"$@" "$PWD/full" 2>message || code=$?
[ $code = 74 ] && [ -c full ] || { echo "full device: $code"; cat message; exit 9; }
[ "$(ls)" = "$(printf 'full\nmessage\nnull\npipe\nstdout')" ] || { ls; exit 9; }
"""

    def test_devices_survive(self):
        """As root, who could replace them: in a mount of its own, never those of the machine."""
        if os.geteuid() != 0 or not shutil.which("unshare") or \
                subprocess.run(["unshare", "--mount", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
            raise unittest.SkipTest("only root can make devices, in a mount namespace (unshare --mount)")
        for name, words, _ in self.each():
            folder = self.path(name)
            os.mkdir(folder)
            probe = "mount -t tmpfs snrq-test %s && mknod %s/null c 1 3 && echo x >%s/null" % (folder, folder, folder)
            if subprocess.run(["unshare", "--mount", "sh", "-c", probe], check=False,
                              stderr=subprocess.DEVNULL).returncode != 0:
                raise unittest.SkipTest("no device can be made in a mount of its own here")
            done = subprocess.run(["unshare", "--mount", "sh", "-c", self.DEVICES, "sh", folder,
                                   *helpers.command(words, 0)], env=helpers.environment(1), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
            self.assertEqual(done.returncode, 0, done.stdout.decode())


class Answers(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.out = helpers.quantize(os.path.join(helpers.temporary_folder(cls), "out"),
                                   *"--bits 3 --method rtn --group-size 64".split(), sequences=2, length=32)

    COMMANDS = (["--help"], ["--version"], ["quantize", "--help"], ["quantize", "--print-options"], ["status", "OUT"],
                ["status", "OUT", "--json"], ["inspect", helpers.MODEL], ["inspect", helpers.MODEL, "--json"],
                ["inspect", "OUT"], ["verify", "OUT"], ["verify", "OUT", "--json"], EVALUATE, [*EVALUATE, "--json"],
                ["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--dry-run", "--json"])

    def check(self, reason, stdout):
        for words in self.COMMANDS:
            with self.subTest(command=" ".join(str(word) for word in words)):
                words = [self.out if word == "OUT" else word for word in words]
                done = subprocess.run(helpers.command(words, 0), env=helpers.environment(1), stdin=subprocess.DEVNULL,
                                      stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)
                self.assertEqual(done.returncode, IO_ERROR, done.stderr.decode())
                self.assertIn("standard output cannot be written: " + reason, done.stderr.decode())

    def test_a_full_device(self):
        with open("/dev/full", "wb") as full:
            self.check("No space left on device", full)

    def test_a_closed_pipe(self):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            self.check("Broken pipe", pipe)

    def test_standard_output_that_is_closed(self):
        """Files that are opened must not take its place."""
        words = helpers.command(["tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", self.path("ids")], 0)
        done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *words], env=helpers.environment(1), check=False, timeout=60,
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, IO_ERROR, done.stderr.decode())
        helpers.succeed("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", self.path("expected"))
        with open(self.path("ids"), "rb") as f, open(self.path("expected"), "rb") as g:
            self.assertEqual(f.read(), g.read())

    def test_two_ranks(self):
        words = helpers.command(["evaluate", "--help"], 2)
        done = subprocess.run(["sh", "-c", 'mpirun -n 2 sh -c \'"$@" >/dev/full\' sh "$@"', "sh", *words[3:]],
                              env=helpers.environment(1), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, timeout=60)
        self.assertEqual(done.returncode, IO_ERROR, done.stderr.decode())

    def test_names_that_are_not_utf8(self):
        """Every byte of no character is \\xNN."""
        model = os.path.join(os.fsencode(self.folder), b"caf\xe9\\")
        shutil.copytree(os.fsencode(helpers.MODEL), model)
        shown = self.folder.replace("\\", "\\\\") + "/caf\\xe9\\\\"
        self.assertEqual(helpers.succeed("inspect", os.fsdecode(model), "--json").json()["path"], shown)
        out = os.path.join(os.fsencode(self.folder), b"out\xff")
        helpers.quantize(os.fsdecode(out), *"--bits 3 --method rtn".split(), model=os.fsdecode(model), sequences=2,
                         length=32)
        shown = self.folder.replace("\\", "\\\\") + "/out\\xff"
        for command in "inspect", "status":
            self.assertEqual(helpers.succeed(command, os.fsdecode(out), "--json").json()["path"], shown)
        self.assertTrue(helpers.succeed("verify", os.fsdecode(out), "--json").json()["ok"])


if __name__ == "__main__":
    helpers.main()
