"""Rows of Yadori's machines: how soon they start, are saved, restored, cloned and answer, and what they cost."""
import json
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from benchmark.loops import row

RUNS = 5
CLONES = 10
#: Caps in processors, for machines under full load at the same time: no more than two processors in all.
CAPS = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5]
CAP_SECONDS = 5


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


class Life:
    def __init__(self, yadori, image):
        self.yadori, self.image = yadori, image
        self.rows = []

    def run(self, *arguments, check=True):
        result = subprocess.run([self.yadori, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if check and result.returncode != 0:
            raise RuntimeError(f"yadori {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def timed(self, *arguments):
        start = time.monotonic()
        self.run(*arguments)
        return (time.monotonic() - start) * 1000

    def add(self, name, unit, values):
        if values:
            self.rows.append(row(name, unit, values))

    def usage(self, *names, seconds="0.2"):
        return json.loads(self.run("stats", "--json", "--interval", seconds, *names))

    def remove(self, *names):
        self.run("remove", "-f", *names, check=False)

    def bare_machines(self):
        """A program that loops for ever: the time of a start in the background, its memory, and caps under full load."""
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
            status = json.loads(self.run("inspect", "bench-bare"))[0]["status"]
            starts.append(status["startDuration"] * 1000)
            memory.append(private_memory(status["process"], beside=256 << 10) / 1024)
            self.remove("bench-bare")
        self.add("start of a bare machine (-d)", "ms", times)
        self.add("its own process, to the first instruction", "ms", starts)
        self.add("its private memory beside RAM", "MiB", memory)
        names = [f"bench-cap-{cap}" for cap in CAPS]
        try:
            for name, cap in zip(names, CAPS):
                self.run("run", "-d", "--rm", "--name", name, "--kernel", kernel, "--firmware", "none", "-m", "64M",
                         "--cpus", str(cap))
            time.sleep(1)
            used = {usage["name"]: usage["processors"] for usage in self.usage(*names, seconds=str(CAP_SECONDS))}
            self.add(f"{len(CAPS)} capped machines: points away", "points",
                     [abs(used[name] - cap) * 100 for name, cap in zip(names, CAPS)])
        finally:
            self.remove(*names)

    def system(self):
        """A machine of the image: saved, restored, cloned, and commands in it."""
        self.run("run", "-d", "--name", "bench-life", "-m", "1G", self.image)
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.run("exec", "bench-life", "--", "systemctl", "is-system-running", "--wait", check=False)
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
                names = [f"bench-clone-{number}" for number in range(1, CLONES + 1)]
                try:
                    whole = self.timed("clone", "--same-identity", "bench-life", f"bench-clone-1..{CLONES}")
                    self.add(f"clone, each of {CLONES}", "ms", [whole / CLONES])
                    self.add("a clone's private memory at birth", "MiB",
                             [usage["privateBytes"] / (1 << 20) for usage in self.usage(*names)])
                    self.waiting_machines(names[:8])
                finally:
                    self.remove(*names)
            finally:
                self.remove("bench-life")

    def waiting_machines(self, names):
        """Machines that wait most of the time, and compute for a tenth of it: one alone, and all at the same time."""
        turns = "for (1..40) { select(undef, undef, undef, 0.1); my $x = 0; $x += $_ for 1..60000 }"
        command = [self.yadori, "exec", names[0], "--", "perl", "-e", turns]
        self.run(*command[1:])

        def seconds(machines):
            start = time.monotonic()
            commands = [subprocess.Popen([*command[:2], name, *command[3:]], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL) for name in machines]
            if any(process.wait() for process in commands):
                raise RuntimeError("a machine that waits failed")
            return time.monotonic() - start

        self.add("40 waits of 0.1 s, each with some work", "s", [seconds(names[:1]) for _ in range(2)])
        self.add(f"the same in {len(names)} machines at once", "s", [seconds(names) for _ in range(2)])

    def single_commands(self):
        """Machines for one command each."""
        self.run("run", "--rm", self.image, "--", "true")
        for name, command in [("true", ["true"]), ("gcc --version", ["gcc", "--version"]),
                              ("python3 -c pass", ["python3", "-c", "pass"])]:
            self.add(f"run --rm -- {name}", "ms",
                     [self.timed("run", "--rm", self.image, "--", *command) for _ in range(RUNS)])


def measure(yadori, image):
    life = Life(yadori, image)
    for part in (life.bare_machines, life.system, life.single_commands):
        try:
            part()
        except RuntimeError as error:
            life.rows.append({"name": str(error), "unit": "failed", "median": 0, "runs": [0]})
    return life.rows
