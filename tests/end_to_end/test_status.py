"""snrq status beside a run and after it; the lock of a run that is gone."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import unittest

import helpers

OPTIONS = "--bits 3 --group-size 64 --method ksnrq --regrid 1 --sequences 4 --length 64"
BLOCKS = 6


def arguments(out, *more):
    return helpers.with_options(["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out,
                                 *OPTIONS.split()], *more)


# Of `snrq status`, as docs/operations.md promises them.
CODES = {"not started": 75, "starting": 69, "running": 69, "stopped": 75, "hung": 76, "killed": 75, "complete": 0,
         "damaged": 65}


def status(out, *more, code=None):
    """Asks where MPI cannot start: there is no such transport. The exit code is that of the state, or `code`."""
    words = helpers.command(["status", out, "--json", *more], ranks=0)
    broken = dict(os.environ, OMPI_MCA_pml="none", OMPI_MCA_btl="none")
    done = subprocess.run(words, env=broken, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=20)
    found = json.loads(done.stdout)
    if (done.returncode, done.stderr) != (CODES[found["state"]] if code is None else code, b""):
        raise AssertionError("exit code %d, %s" % (done.returncode, done.stderr))
    if found["exit_code"] != done.returncode or not found["next"]:
        raise AssertionError(str(found))
    return found


class Status(helpers.Test):
    @classmethod
    def setUpClass(cls):
        """A run that was killed after its first block."""
        super().setUpClass()
        cls.killed = os.path.join(helpers.temporary_folder(cls), "killed")
        process = helpers.start(*arguments(cls.killed), ranks=2)
        limit = time.monotonic() + 60
        while sum("block" in record for record in helpers.manifest(cls.killed)) < 1 and time.monotonic() < limit:
            time.sleep(0.01)
        cls.beside = status(cls.killed)
        cls.beside_as_text = helpers.run("status", cls.killed).stdout
        cls.was_running = process.poll() is None
        helpers.kill_ranks(process)
        process.stderr.close()
        cls.committed = sum("block" in record for record in helpers.manifest(cls.killed))

    def copy(self):
        return shutil.copytree(self.killed, self.path("out"))

    def write_lock(self, out, **changed):
        holder = {"heartbeat": int(time.time()), "host": "elsewhere", "job": "42", "pid": 7, "process": 0, "started": 1,
                  "restart": 0}
        holder.update(changed)
        with open(os.path.join(out, "snrq.lock"), "w") as f:
            json.dump(holder, f)

    def test_beside_a_run(self):
        self.assertTrue(self.was_running)
        found = self.beside
        self.assertEqual((found["state"], found["blocks"], found["starts"]), ("running", BLOCKS, 1))
        self.assertGreaterEqual(found["committed"], 1)
        self.assertTrue(0 < found["done"] < 1 and found["seconds_left"] > 0 and found["blocks_per_hour"] > 0)
        self.assertEqual(found["holder"]["host"], socket.gethostname())
        for words in ("running", "of 6 committed", "blocks per hour", "left"):
            self.assertIn(words, self.beside_as_text)

    def test_killed(self):
        found = status(self.killed)
        self.assertEqual((found["state"], found["committed"]), ("killed", self.committed))
        self.assertTrue(found["holder"]["stale"])
        self.assertAlmostEqual(found["done"], self.committed / BLOCKS)
        self.assertNotIn("seconds_left", found)
        self.assertIn("run the same command again", found["next"])

    def test_killed_after_it_was_stopped_before(self):
        """What the run before said is not true of the last one."""
        out = self.copy()
        halt = os.path.join(out, "snrq.halt")
        open(halt, "w").close()
        self.assertEqual(helpers.run(*arguments(out)).code, helpers.STOPPED)
        self.assertIn("delete snrq.halt", status(out)["next"])
        os.remove(halt)
        starts = status(out)["starts"]
        helpers.kill_when(lambda: sum(b'"start"' in line for line in self.log(out)) > starts, *arguments(out), ranks=1)
        self.assertEqual(status(out)["state"], "killed")

    @staticmethod
    def log(out):
        with open(os.path.join(out, "run.jsonl"), "rb") as f:
            return f.readlines()

    def test_hung(self):
        """The watchdog of either rank says so, though none of them can go on."""
        out = self.path("out")
        process = helpers.start(*arguments(out, "--watchdog", "2s"), ranks=2)
        try:
            limit = time.monotonic() + 60
            while len(helpers.manifest(out)) < 6 and time.monotonic() < limit:
                time.sleep(0.002)
            with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
                os.kill(int(f.read().split()[0]), signal.SIGSTOP)  # rank 0, which writes the logs otherwise
            self.assertEqual(process.wait(timeout=60), helpers.HUNG)
        finally:
            if process.poll() is None:
                helpers.stop(process)
            process.stderr.close()
        found = status(out)
        self.assertEqual(found["state"], "hung")
        self.assertRegex(found["last_error"], r"rank 1 on \S+: no progress for 2 s in phase \w+: ended by the watchdog")
        self.assertIn("run the same command again", found["next"])

    def test_never_started(self):
        out = self.path("out")
        result = helpers.run("status", out)
        self.assertEqual(result.code, helpers.NO_INPUT, result)
        self.assertIn("there is no such directory", result.stderr)
        os.mkdir(out)
        found = status(out)
        self.assertEqual((found["state"], found["done"]), ("not started", 0))
        self.write_lock(out)  # a run that has just begun
        self.assertEqual(status(out)["state"], "starting")

    def test_damaged(self):
        """A missing or short file is seen at once, a changed one with --full, and the answer says what mends it."""
        def cut(path):
            os.truncate(path, os.path.getsize(path) - 1)

        def change(path):
            helpers.flip_bit(path, -9)
        complete = helpers.quantize(self.path("complete"), "--bits", 3, "--method", "rtn", ranks=0)
        for number, (name, damage, options, redo) in enumerate((
                ("block-00002.h5", os.remove, (), 2), ("block-00004.h5", cut, (), 4), ("block-00003.h5", change, ("--full",), 3),
                ("rest.h5", change, ("--full",), BLOCKS), ("manifest.jsonl", change, (), None), ("snrq.json", change, (), None))):
            with self.subTest(name=name):
                out = shutil.copytree(complete, self.path(str(number)))
                self.assertEqual(status(out, *options)["state"], "complete")
                damage(os.path.join(out, name))
                found = status(out, *options)
                self.assertEqual(found["state"], "damaged")
                self.assertEqual([item["file"] for item in found["damage"]], [name])
                self.assertIn(os.path.join(out, name), found["damage"][0]["problem"])
                self.assertEqual(found.get("redo"), redo)
                self.assertIn("put the file back" if redo is None else "--redo %d" % redo, found["next"])
                if options:
                    self.assertEqual(status(out)["state"], "complete")

    def test_records_that_were_lost(self):
        out = helpers.quantize(self.path("out"), "--bits", 3, "--method", "rtn", ranks=0)
        with open(os.path.join(out, "manifest.jsonl"), "rb+") as f:
            lines = f.read().splitlines(keepends=True)
            f.seek(0)
            f.writelines(lines[:-2])
            f.truncate()
        found = status(out)
        self.assertEqual((found["state"], found["damage"][0]["file"]), ("damaged", "manifest.jsonl"))

    def test_without_permission(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to become somebody else")
        out = self.copy()
        program, *words = helpers.command(["status", out], ranks=0)
        words = [shutil.copy(program, self.path("snrq")), *words]
        os.chmod(self.folder, 0o755)

        def ask():
            return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=20,
                                  universal_newlines=True, preexec_fn=lambda: os.setuid(65534))
        try:
            if ask().returncode != CODES["killed"]:
                raise unittest.SkipTest("somebody else cannot start this program")
        except PermissionError:
            raise unittest.SkipTest("somebody else cannot start this program")
        for name in "", "manifest.jsonl", "snrq.json", "run.jsonl":
            with self.subTest(name=name):
                path = os.path.join(out, name) if name else out
                mode = os.stat(path).st_mode & 0o777
                os.chmod(path, 0)
                done = ask()
                os.chmod(path, mode)
                self.assertEqual((done.returncode, done.stdout), (helpers.NO_INPUT, ""), done)
                self.assertIn(path + ": ", done.stderr)
                self.assertIn("Permission denied", done.stderr)

    def test_stopped_then_complete(self):
        out = self.copy()
        halt = os.path.join(out, "snrq.halt")
        open(halt, "w").close()
        self.assertEqual(helpers.run(*arguments(out)).code, helpers.STOPPED)
        found = status(out)
        self.assertEqual((found["state"], found["starts"]), ("stopped", 2))
        self.assertIn("snrq.halt exists", found["last_error"])
        os.remove(halt)
        helpers.succeed(*arguments(out), ranks=2)
        found = status(out)
        self.assertEqual((found["state"], found["committed"], found["done"]), ("complete", BLOCKS, 1))
        self.assertNotIn("holder", found)

    def test_failed(self):
        out = self.copy()
        next_block = os.path.join(out, "block-%05d.h5.tmp" % self.committed)
        os.mkdir(next_block)
        code = helpers.run(*arguments(out), ranks=2).code
        self.assertNotEqual(code, 0)
        found = status(out, code=code)
        self.assertEqual(found["state"], "failed")
        self.assertIn(os.path.basename(next_block), found["last_error"])
        self.assertAlmostEqual(found["done"], found["committed"] / BLOCKS)
        self.assertIn("mend what the last error names", found["next"])

    def test_no_output(self):
        for path, why in (helpers.MODEL, "no output of snrq"), (helpers.CALIBRATION, "expected a directory"):
            result = helpers.run("status", path)
            self.assertEqual((result.code, result.stdout), (helpers.NO_INPUT, ""), result)
            self.assertIn(why, result.stderr)

    def test_a_lock_from_elsewhere_can_be_removed_by_force(self):
        out = self.copy()
        self.write_lock(out)
        self.assertEqual(status(out)["holder"], {"host": "elsewhere", "job": "42", "pid": 7, "stale": False,
                                                 "silent_seconds": status(out)["holder"]["silent_seconds"]})
        result = helpers.run(*arguments(out), ranks=2)
        self.assertEqual(result.code, helpers.CANNOT_WRITE, result)
        self.assertIn("--force-unlock", result.stderr)
        result = helpers.succeed(*arguments(out, "--force-unlock"), ranks=2)
        self.assertIn("removed the lock of process 7 on elsewhere", result.stderr)

    def test_the_lock_of_a_living_process_stays(self):
        out = self.copy()
        self.write_lock(out, host=socket.gethostname(), pid=os.getpid())
        result = helpers.run(*arguments(out, "--force-unlock"))
        self.assertEqual(result.code, helpers.CANNOT_WRITE, result)
        self.assertIn("process %d works here" % os.getpid(), result.stderr)

    def test_a_requeued_job_takes_over_its_own_lock(self):
        out = self.copy()
        halt = os.path.join(out, "snrq.halt")
        open(halt, "w").close()
        for job, restart, code in (("42", "0", helpers.CANNOT_WRITE), ("43", "1", helpers.CANNOT_WRITE),
                                   ("42", "1", helpers.STOPPED)):
            with self.subTest(job=job, restart=restart):
                self.write_lock(out)
                environment = dict(helpers.environment(1), SLURM_JOB_ID=job, SLURM_RESTART_COUNT=restart)
                words = helpers.command(arguments(out), ranks=0)
                self.assertEqual(subprocess.run(words, env=environment, stderr=subprocess.DEVNULL, timeout=60,
                                                check=False).returncode, code)


if __name__ == "__main__":
    helpers.main()
