"""Two hosts of one machine: network namespaces that are joined by a wire (wire.c), and runs with a rank on each."""
import contextlib
import os
import shutil
import subprocess

DEVICE = "wire0"
MTU = 9000  # as in clusters; with 1500, headers would be 4 % of the bytes
NETWORK = "10.77.0"

AGENT = """#!/bin/sh
# Stands in for ssh: a host's name, then a command.
shift
exec ip netns exec {space} unshare --uts sh -c "hostname {host}; $*"
"""


def why_not():
    """Why there cannot be two hosts here; None: there can."""
    missing = [tool for tool in ("ip", "unshare", "mpirun") if not shutil.which(tool)]
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if missing:
        return "needs " + ", ".join(missing)
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun, for devices that are joined by a wire"
    name = "snrq-try-%d" % os.getpid()
    made = subprocess.run(["ip", "netns", "add", name], stderr=subprocess.PIPE)
    if made.returncode != 0:
        return "the system makes no network namespace: " + made.stderr.decode().strip()
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class TwoHosts:
    """Hosts "first" and "second", on a wire of `rate` bits per second and `delay` seconds one way."""

    def __init__(self, wire, folder, rate=1e9, delay=1e-4):
        self.wire, self.folder, self.rate, self.delay = wire, folder, rate, delay
        self.spaces = ["snrq-%d-%s" % (os.getpid(), name) for name in "ab"]

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for space in self.spaces:
                self.ip("netns", "add", space)
                stack.callback(self.ip, "netns", "del", space)
            wire = subprocess.Popen([self.wire, *self.spaces, DEVICE, str(self.rate), str(self.delay)], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE)
            stack.enter_context(wire)  # leaving closes its input, and it ends
            if wire.stdout.readline() != b"ready\n":
                raise RuntimeError("the wire between two hosts could not be made")
            for number, space in enumerate(self.spaces, 1):
                self.ip("-n", space, "link", "set", "lo", "up")
                self.ip("-n", space, "addr", "add", "%s.%d/24" % (NETWORK, number), "dev", DEVICE)
                # A long queue: packets that get lost would be sent, and counted, twice.
                self.ip("-n", space, "link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", "5000", "up")
            self.agent = os.path.join(self.folder, "agent.sh")
            with open(self.agent, "w") as f:
                f.write(AGENT.format(space=self.spaces[1], host="second"))
            os.chmod(self.agent, 0o755)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self.stack.close()

    @staticmethod
    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    def command(self, words, hosts=2, exported=()):
        """mpirun of a command with a rank on each host. exported: names of variables for all ranks."""
        where = "first:1" if hosts == 1 else "first:1,second:1"
        mpirun = ["mpirun", "--host", where, "-n", str(hosts)]
        for name, value in (("plm_rsh_agent", self.agent), ("plm_rsh_no_tree_spawn", "1"), ("pml", "ob1"), ("btl", "tcp,self"),
                            ("oob", "tcp"), ("oob_tcp_if_include", NETWORK + ".0/24"),
                            ("btl_tcp_if_include", NETWORK + ".0/24")):
            mpirun += ["--mca", name, value]
        for name in exported:
            mpirun += ["-x", name]
        return ["ip", "netns", "exec", self.spaces[0], "unshare", "--uts", "sh", "-c", 'hostname first; exec "$@"', "sh",
                *mpirun, *map(str, words)]

    def sent(self):
        """Bytes that each host has sent so far, with all headers."""
        return [int(subprocess.run(["ip", "netns", "exec", space, "cat", "/sys/class/net/%s/statistics/tx_bytes" % DEVICE],
                                   check=True, stdout=subprocess.PIPE).stdout) for space in self.spaces]
