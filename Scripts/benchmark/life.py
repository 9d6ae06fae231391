"""Rows of Yadori's machines: how soon they start, are saved, restored, cloned and answer, and what they cost."""
import struct
import tempfile
import time
from pathlib import Path

from benchmark.commands import Commands
from benchmark.entitlement import Entitlement
from benchmark.rows import RUNS, Rows

CLONES = 10
#: That a program in the guest fills and gives back.
TOUCHED = 500_000_000
#: So many are said to be possible on a host with 24 GiB.
MANY_CLONES = 300


def private_memory(process, beside):
    """KiB that are the process's alone, without the mapping of at least so many KiB, which has the machine's RAM."""
    total, counts = 0, True
    with open(f"/proc/{process}/smaps") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == "Size":
                counts = int(rest.split()[0]) < beside
            elif name == "Private_Dirty" and counts:
                total += int(rest.split()[0])
    return total


class Life(Rows):
    def bare_machines(self):
        """A program that loops for ever: the time of a start in the background, and its memory."""
        with tempfile.TemporaryDirectory() as folder:
            kernel = Path(folder) / "endless.bin"
            # j .
            kernel.write_bytes(struct.pack("<I", 0x6F))
            self.measure_bare(str(kernel))

    def measure_bare(self, kernel):
        times, starts, memory = [], [], []
        for _ in range(RUNS):
            times.append(self.timed("run", "-d", "--rm", "--name", "bench-bare", "--kernel", kernel, "--firmware",
                                    "none", "-m", "256M"))
            status = self.status("bench-bare")
            starts.append(status["startDuration"] * 1000)
            memory.append(private_memory(status["process"], beside=256 << 10) / 1024)
            self.remove("bench-bare")
        self.add("start of a bare machine (-d)", "ms", times)
        self.add("its own process, to the first instruction", "ms", starts)
        self.add("its private memory beside RAM", "MiB", memory)

    def warm(self):
        """As it is once the image has been used: with another build's code each machine would translate its first steps."""
        self.run("image", "warm", self.image)

    def system(self):
        """A machine of the image: saved, restored, cloned, and commands in it."""
        self.run("run", "-d", "--name", "bench-life", "-m", "1G", self.image)
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.wait_for_boot("bench-life")
                self.add("exec true in a running machine", "ms",
                         [self.timed("exec", "bench-life", "--", "true") for _ in range(RUNS)])
                saved = str(Path(folder) / "saved")
                self.add("save, 1 GiB of RAM", "ms", [self.timed("save", "bench-life", saved) for _ in range(RUNS)])
                for name, flags in [("restore, looking for damage", []), ("restore", ["--unchecked"])]:
                    times, answers = [], []
                    for _ in range(RUNS):
                        times.append(self.timed("restore", saved, "--name", "bench-again", *flags))
                        answers.append(times[-1] + self.timed("exec", "bench-again", "--", "true"))
                        self.remove("bench-again")
                    self.add(name, "ms", times)
                    self.add(f"{name}, and exec true", "ms", answers)
                self.snapshots()
                self.clones()
                self.memory()
            finally:
                self.remove("bench-life")

    def snapshots(self):
        names = [f"bench-{number}" for number in range(RUNS)]
        self.add("snapshot create", "ms", [self.timed("snapshot", "create", "bench-life", name) for name in names])
        self.add("snapshot revert", "ms", [self.timed("snapshot", "revert", "bench-life", name) for name in names])
        for name in names:
            self.run("snapshot", "delete", "bench-life", name)

    def clones(self):
        names = [f"bench-clone-{number}" for number in range(1, CLONES + 1)]
        alone = []
        for _ in range(RUNS):
            alone.append(self.timed("clone", "--same-identity", "bench-life", names[0]))
            self.remove(names[0])
        self.add("clone, a single one, saving included", "ms", alone)
        for kind, flags in [("clone", ["--same-identity"]), ("clone with an identity", [])]:
            times, private, shared = [], [], []
            for run in range(RUNS):
                try:
                    times.append(self.timed("clone", *flags, "bench-life", f"bench-clone-1..{CLONES}") / CLONES)
                    if flags:
                        # Of the first ones before anybody has asked the others anything.
                        for name in names[:3]:
                            memory = memory_use(self.status(name)["process"])
                            private.append(memory["private"])
                            shared.append(memory["shared"])
                    elif run == 0:
                        self.answers(names)
                finally:
                    self.remove(*names)
            self.add(f"{kind}, each of {CLONES}", "ms", times)
            if flags:
                self.add("a clone's private memory at birth", "MiB", private)
                self.add("what a clone shares of its memory", "%", shared)

    def answers(self, names):
        """Each answers by its own name."""
        times = []
        for name in names:
            start = time.monotonic()
            answer = self.run("exec", name, "--", "hostname").strip()
            times.append((time.monotonic() - start) * 1000)
            if answer != name:
                raise RuntimeError(f"the clone {name} says that it is {answer}")
        self.add(f"exec hostname in each of {len(names)} clones", "ms", times)

    def memory(self):
        """What comes back to this host of memory that the guest doesn't use any more."""
        def used():
            return self.usage("bench-life")[0]["privateBytes"] / (1 << 20)

        before = used()
        touch = f"perl -e '$n = {TOUCHED}; $x = q(x) x $n; $| = 1; print q(x); select undef, undef, undef, 0.1 until -e q(/tmp/enough)'"
        self.run("exec", "bench-life", "--", "sh", "-c", f"rm -f /tmp/full; {touch} >/tmp/full 2>/dev/null & "
                 "until [ -s /tmp/full ]; do sleep 0.1; done")
        full = used()
        self.run("exec", "bench-life", "--", "touch", "/tmp/enough")
        start, lowest = time.monotonic(), full
        while time.monotonic() - start < 10:
            lowest = min(lowest, used())
        self.add("private memory of a machine", "MiB", [before])
        self.add("the same when a program has filled 500 MB", "MiB", [full])
        self.add("the same within 10 s of the program's end", "MiB", [lowest])

    def many_clones(self):
        """Not by default: it takes minutes, and some 24 GiB."""
        self.run("run", "-d", "--name", "bench-many", "-m", "1G", self.image)
        names = [f"bench-many-{number}" for number in range(1, MANY_CLONES + 1)]
        try:
            self.wait_for_boot("bench-many")
            before = available_memory()
            whole = self.timed("clone", "bench-many", f"bench-many-1..{MANY_CLONES}")
            self.add(f"clone with an identity, each of {MANY_CLONES}", "ms", [whole / MANY_CLONES])
            self.answers(names)
            self.add(f"this host's memory in use by {MANY_CLONES} clones", "GiB", [before - available_memory()])
        finally:
            self.remove(*names)
            self.remove("bench-many")


def memory_use(process):
    """MiB that are a process's alone, its translated code among them, and hundredths of what is in its memory that others
    have, too, or could have: files."""
    private, shared, code = 0, 0, ""
    with open(f"/proc/{process}/smaps") as file:
        for line in file:
            words = line.split()
            if "-" in words[0]:
                # It is mapped twice, once to be written: it counts as shared with itself.
                code = words[1] if line.endswith("/dev/zero (deleted)\n") else ""
                continue
            if words[0] == "Private_Dirty:" or (words[0] == "Rss:" and "x" in code):
                private += int(words[1])
            elif words[0].startswith("Shared_") and not code:
                shared += int(words[1])
    return {"private": private / 1024, "shared": shared / (private + shared) * 100}


def available_memory():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) / (1 << 20) for line in file if line.startswith("MemAvailable:"))


def measure(yadori, image, has_many_clones=False):
    life, entitlement = Life(yadori, image), Entitlement(yadori, image)
    parts = [life.bare_machines, entitlement.caps, life.warm, life.system, entitlement.waiting,
             Commands(yadori, image).commands]
    if has_many_clones:
        parts.append(life.many_clones)
    rows = []
    for part in parts:
        try:
            part()
        except RuntimeError as error:
            part.__self__.rows.append({"name": str(error), "unit": "failed", "median": 0, "runs": [0]})
        rows += part.__self__.rows
        part.__self__.rows = []
    return rows
