"""Asked to stop, a run ends at the next safe point with exit code 75; run again, it ends with the same bytes."""
import json
import os
import signal
import time

import helpers

# A stage takes 50 ms or so, so that a signal sent after one comes before the end of the second one after it.
OPTIONS = "--bits 3 --group-size 64 --method ksnrq --beam 8 --alpha chained --sequences 4 --length 64 --regrid 1"
BLOCKS, STAGES = 6, 4


def arguments(out, *more):
    return helpers.with_options(["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out,
                                 *OPTIONS.split()], *more)


def events(out, kind):
    try:
        with open(os.path.join(out, "run.jsonl"), "rb") as f:
            found = [json.loads(line) for line in f.read().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []
    return [event for event in found if event["event"] == kind]


def committed_blocks(out):
    return sum("block" in record for record in helpers.manifest(out))


def status(out):
    with open(os.path.join(out, "status.json")) as f:
        return json.load(f)


class Stop(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.undisturbed = os.path.join(helpers.temporary_folder(cls), "undisturbed")
        helpers.succeed(*arguments(cls.undisturbed), ranks=2)
        cls.expected = helpers.weights(cls.undisturbed)

    def stop_after(self, out, stages, ask, ranks=2):
        """Runs until `stages` stages are done in all, asks the run to stop; returns how many it did afterwards."""
        process = helpers.start(*arguments(out), ranks=ranks)
        try:
            limit = time.monotonic() + 60
            while len(events(out, "stage")) < stages:
                self.assertIsNone(process.poll(), "ended too early")
                self.assertLess(time.monotonic(), limit, "too slow")
                time.sleep(0.002)
            ask(process)
            self.assertEqual(process.wait(timeout=60), helpers.STOPPED)
            said = process.stderr.read().decode()
            self.assertIn("run the same command again to go on", said)
        finally:
            if process.poll() is None:
                helpers.stop(process)
            process.stderr.close()
        return len(events(out, "stage")) - stages

    def check_finishes(self, out, ranks):
        done = committed_blocks(out)
        result = helpers.succeed(*arguments(out), ranks=ranks)
        self.assertEqual(result.stderr.count("replayed"), done, result)
        self.assertEqual(helpers.weights(out), self.expected)

    def test_at_every_stage_boundary_of_a_block(self):
        """One run after the other goes on from the last, on other numbers of ranks, and is stopped one stage later."""
        out = self.path("out")
        for stage, ranks in zip(range(STAGES), (2, 1, 3, 2)):
            with self.subTest(stage=stage, ranks=ranks):
                before, committed = len(events(out, "stage")), committed_blocks(out)
                wanted = STAGES + stage  # one block, and some stages of the next
                more = self.stop_after(out, before + wanted, lambda p: p.send_signal(signal.SIGUSR1), ranks)
                self.assertLessEqual(more, 2)
                self.assertEqual(committed_blocks(out) - committed, (wanted + more) // STAGES)
                end = events(out, "end")[-1]
                self.assertEqual((end["state"], end["exit_code"], end["committed"]),
                                 ("stopped", helpers.STOPPED, committed_blocks(out)))
        self.assertFalse(os.path.exists(os.path.join(out, "snrq.lock")))
        self.check_finishes(out, 2)

    def test_other_signals(self):
        out = self.path("out")
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP):
            # mpirun ends its ranks when it gets SIGTERM or SIGHUP, so these go to a run without it.
            ranks = 2 if number == signal.SIGUSR2 else 0
            self.stop_after(out, len(events(out, "stage")) + 1, lambda p: p.send_signal(number), ranks)
            self.assertIn("signal %d" % number, status(out)["message"])
        self.check_finishes(out, 2)

    def test_a_run_that_nohup_started_outlives_its_terminal(self):
        out = self.path("out")
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            process = helpers.start(*arguments(out), ranks=0)
        finally:
            signal.signal(signal.SIGHUP, before)
        try:
            limit = time.monotonic() + 60
            while len(events(out, "stage")) < 1 and time.monotonic() < limit:
                time.sleep(0.002)
            process.send_signal(signal.SIGHUP)
            self.assertEqual(process.wait(timeout=60), 0)
        finally:
            if process.poll() is None:
                helpers.stop(process)
            process.stderr.close()
        self.assertEqual(helpers.weights(out), self.expected)

    def test_signal_to_one_rank_stops_all(self):
        def ask(process):
            with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
                os.kill(int(f.read().split()[-1]), signal.SIGUSR1)
        self.stop_after(self.path("out"), 1, ask, ranks=3)

    def test_halt_file(self):
        out = self.path("out")
        halt = os.path.join(out, "snrq.halt")
        self.stop_after(out, 2, lambda process: open(halt, "w").close())
        again = helpers.run(*arguments(out), ranks=2)
        self.assertEqual(again.code, helpers.STOPPED, again)
        self.assertIn("snrq.halt exists; delete it", again.stderr)
        os.remove(halt)
        self.check_finishes(out, 1)

    def test_watchdog(self):
        """One rank is held; the other waits for it, says so, and ends the run, which can be resumed."""
        out = self.path("out")
        process = helpers.start(*arguments(out, "--watchdog", "3s"), ranks=2)
        try:
            limit = time.monotonic() + 60
            while len(events(out, "stage")) < 5 and time.monotonic() < limit:
                time.sleep(0.002)
            with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
                os.kill(int(f.read().split()[-1]), signal.SIGSTOP)
            self.assertEqual(process.wait(timeout=60), 76)
            self.assertRegex(process.stderr.read().decode(), r"rank \d on \S+: no progress for 3 s in phase \w+")
        finally:
            if process.poll() is None:
                helpers.stop(process)
            process.stderr.close()
        self.check_finishes(out, 1)

    def test_max_time(self):
        """A stage is made to take more than half of the time: another one like it would not end in time."""
        out, held = self.path("out"), 0
        process = helpers.start(*arguments(out, "--max-time", "6s"), ranks=2)
        try:
            while len(events(out, "stage")) < 3 and process.poll() is None:
                time.sleep(0.002)
            if process.poll() is None:
                with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
                    rank = int(f.read().split()[-1])
                os.kill(rank, signal.SIGSTOP)
                time.sleep(3.1)
                held = len(events(out, "stage"))
                os.kill(rank, signal.SIGCONT)
            self.assertEqual(process.wait(timeout=60), helpers.STOPPED)
            self.assertIn("the time is up", process.stderr.read().decode())
        finally:
            if process.poll() is None:
                helpers.stop(process)
            process.stderr.close()
        if held > 0:
            self.assertLessEqual(len(events(out, "stage")), held + 2)
        self.check_finishes(out, 2)


if __name__ == "__main__":
    helpers.main()
