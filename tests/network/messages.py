"""What count_messages.c wrote: calls and bytes by phase and MPI function, and what a host sent."""
import collections
import glob

PHASES = ("rest", "read", "backward", "forward", "gram", "factor", "grid", "search", "tune", "write")
ADDED = ("Allreduce", "Iallreduce", "Reduce", "Ireduce")
SENT = ("Bcast", "Ibcast")


class Rank:
    def __init__(self, path):
        self.calls, self.bytes, self.payloads, self.device = (collections.Counter() for _ in range(4))
        with open(path) as f:
            for line in f:
                phase, function, calls, bytes_, payload = line.split()
                name = PHASES[int(phase) + 1]
                if function == "device":
                    self.device[name] += int(bytes_)
                else:
                    self.calls[name, function] += int(calls)
                    self.bytes[name, function] += int(bytes_)
                    self.payloads[name] += float(payload)

    def by_function(self):
        """{function: (calls, bytes)} of the phases of a run, without its beginning and end."""
        out = collections.defaultdict(lambda: (0, 0))
        for (phase, function), calls in self.calls.items():
            if phase != "rest":
                before = out[function]
                out[function] = (before[0] + calls, before[1] + self.bytes[phase, function])
        return dict(out)

    def payload(self, phase):
        """Bytes that a rank sends in a phase for sums and broadcasts, on the average."""
        return self.payloads[phase]


def read(prefix):
    """The ranks of a run, in order."""
    paths = sorted(glob.glob(prefix + ".*"), key=lambda path: int(path.rpartition(".")[2]))
    return [Rank(path) for path in paths]
