"""snrq status beside a run and after it; the lock of a run that is gone."""
import json
import os
import shutil
import socket
import subprocess
import time

import helpers

OPTIONS = "--bits 3 --group-size 64 --method ksnrq --regrid 1 --sequences 4 --length 64"
BLOCKS = 6


def arguments(out, *more):
    return helpers.with_options(["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out,
                                 *OPTIONS.split()], *more)


def status(out):
    """Asks where MPI cannot start: there is no such transport."""
    words = helpers.command(["status", out, "--json"], ranks=0)
    broken = dict(os.environ, OMPI_MCA_pml="none", OMPI_MCA_btl="none")
    return json.loads(subprocess.run(words, env=broken, stdout=subprocess.PIPE, check=True, timeout=20).stdout)


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
        cls.beside_as_text = helpers.succeed("status", cls.killed).stdout
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
        self.assertNotEqual(helpers.run(*arguments(out), ranks=2).code, 0)
        found = status(out)
        self.assertEqual(found["state"], "failed")
        self.assertIn(os.path.basename(next_block), found["last_error"])

    def test_no_output(self):
        result = helpers.run("status", helpers.MODEL)
        self.assertEqual(result.code, helpers.NO_INPUT, result)

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
