"""What count_messages.c wrote: calls and bytes by phase and MPI function, and what a host sent."""
import collections
import glob

PHASES = ("rest", "read", "forward", "gram", "factor", "grid", "search", "write")
ADDED = ("Allreduce", "Iallreduce", "Reduce")
SENT = ("Bcast", "Ibcast")


class Rank:
    def __init__(self, path):
        self.calls, self.bytes, self.device = collections.Counter(), collections.Counter(), collections.Counter()
        with open(path) as f:
            for line in f:
                phase, function, calls, bytes_ = line.split()
                name = PHASES[int(phase) + 1]
                if function == "device":
                    self.device[name] += int(bytes_)
                else:
                    self.calls[name, function] += int(calls)
                    self.bytes[name, function] += int(bytes_)

    def by_function(self):
        """{function: (calls, bytes)} of the phases of a run, without its beginning and end."""
        out = collections.defaultdict(lambda: (0, 0))
        for (phase, function), calls in self.calls.items():
            if phase != "rest":
                before = out[function]
                out[function] = (before[0] + calls, before[1] + self.bytes[phase, function])
        return dict(out)

    def payload(self, phase, ranks):
        """Bytes that a rank sends in a phase, on the average: 2 (P - 1) / P of sums, (P - 1) / P of what one sends to all."""
        added = sum(self.bytes[phase, name] for name in ADDED)
        return (ranks - 1) / ranks * (2 * added + sum(self.bytes[phase, name] for name in SENT))


def read(prefix):
    """The ranks of a run, in order."""
    paths = sorted(glob.glob(prefix + ".*"), key=lambda path: int(path.rpartition(".")[2]))
    return [Rank(path) for path in paths]
