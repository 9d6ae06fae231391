"""Rows of what machines get of the host's processors while others want them, too."""
import contextlib
import os
import pty
import select
import socketserver
import statistics
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from benchmark.rows import Rows

#: Caps in processors, for machines under full load at the same time: some of two processors is left for the host itself.
CAPS = [0.05, 0.05, 0.1, 0.1, 0.15, 0.2, 0.3, 0.8]
CAP_SECONDS = 5
#: Points of a processor that a cap may be missed by in a look of a fifth of a second: one turn of the host's scheduler.
NEAR = 5
#: What is waited for on the network, and this computing goes with it, for a tenth of the time about.
WAIT = 0.1
WAITS = 40
KEYS = 40
#: The processors that machines which wait are held to.
PINS = "0,1"
#: The address by which a machine on its usual network reaches this host's loopback.
HOST = "10.0.2.2"


class Entitlement(Rows):
    @contextlib.contextmanager
    def endless(self):
        """A program that loops for ever."""
        with tempfile.TemporaryDirectory() as folder:
            kernel = Path(folder) / "endless.bin"
            # j .
            kernel.write_bytes(struct.pack("<I", 0x6F))
            yield ["--kernel", str(kernel), "--firmware", "none", "-m", "64M"]

    def caps(self):
        names = [f"bench-cap-{number}" for number in range(1, len(CAPS) + 1)]
        with self.endless() as program:
            try:
                for name, cap in zip(names, CAPS):
                    self.run("run", "-d", "--rm", "--name", name, "--cpus", str(cap), *program)
                time.sleep(1)
                used = {usage["name"]: usage["processors"] for usage in self.usage(*names, seconds=str(CAP_SECONDS))}
                self.add(f"{len(CAPS)} capped machines: points away", "points",
                         [abs(used[name] - cap) * 100 for name, cap in zip(names, CAPS)])
                self.change(names[-1])
                self.neighbours()
            finally:
                self.remove(*names)

    def change(self, name):
        """From the command to the end of the first fifth of a second in which the machine has its new share."""
        times = []
        for cap in (0.2, 0.8, 0.1, 0.5, 0.8):
            start = time.monotonic()
            self.run("set", name, "--cpus", str(cap))
            while abs(self.usage(name)[0]["processors"] - cap) * 100 > NEAR:
                if time.monotonic() - start > 10:
                    raise RuntimeError(f"a cap of {cap} isn't kept within 10 s of its change")
            times.append(time.monotonic() - start)
        self.add(f"a changed cap, till a look of 0.2 s shows it within {NEAR} points", "s", times)

    def neighbours(self):
        """While the capped machines are at full load: a console, beside them and then alone."""
        self.run("run", "-d", "--name", "bench-console", self.image)
        try:
            self.run("exec", "bench-console", "--", "systemctl", "is-system-running", "--wait", check=False)
            beside = self.echoes("bench-console")
            self.remove(*[f"bench-cap-{number}" for number in range(1, len(CAPS) + 1)])
            self.add("a key's echo on an idle console", "ms", self.echoes("bench-console"))
            self.add("the same beside the capped machines", "ms", beside)
        finally:
            self.remove("bench-console")

    def echoes(self, name):
        """Milliseconds from each key to its echo, at a shell's or login prompt."""
        process, terminal = pty.fork()
        if process == 0:
            os.execv(self.yadori, [self.yadori, "console", name])
        times = []

        def read(wanted, limit):
            seen, end = b"", time.monotonic() + limit
            while wanted not in seen and time.monotonic() < end:
                if select.select([terminal], [], [], end - time.monotonic())[0]:
                    seen += os.read(terminal, 4096)
            return wanted in seen

        try:
            # What has come so far, and a prompt of its own.
            read(b"\0", 1)
            os.write(terminal, b"\r")
            read(b"\0", 2)
            for number in range(KEYS):
                key = b"qxzj"[number % 4:][:1]
                start = time.monotonic()
                os.write(terminal, key)
                if not read(key, 10):
                    raise RuntimeError("the console doesn't echo")
                times.append((time.monotonic() - start) * 1000)
                # A person's pause, in which the machine falls idle.
                time.sleep(0.05)
            os.write(terminal, b"\x15")
            return times
        finally:
            with contextlib.suppress(OSError):
                os.kill(process, 15)
            os.close(terminal)
            os.waitpid(process, 0)

    def waiting(self):
        """Machines that wait for the network, or the disk, most of the time: one alone, and all at the same time."""
        names = [f"bench-wait-{number}" for number in range(1, 9)]
        self.run("run", "-d", "--name", names[0], "--pin", PINS, self.image)
        try:
            self.wait_for_boot(names[0])
            self.run("clone", "--same-identity", names[0], f"bench-wait-2..{len(names)}")
            with late_answers() as port:
                turns = (f'use IO::Socket; my $s = IO::Socket::INET->new("{HOST}:{port}") or die "no way to the host";'
                         f"for (1..{WAITS}) {{ syswrite $s, 'a'; sysread $s, my $b, 1 or die;"
                         "my $x = 0; $x += $_ for 1..60000 }")
                self.beside_each_other(names, f"{WAITS} waits for the network, with some work", "perl", "-e", turns)
            if "fio" in self.run("exec", names[0], "--", "sh", "-c", "command -v fio", check=False):
                self.run("exec", names[0], "--", "sh", "-c", "head -c 64M /dev/urandom >/root/data; sync")
                # Each machine has that file: its own from here on, though all are layers over one.
                for name in names[1:]:
                    self.run("exec", name, "--", "sh", "-c", "head -c 64M /dev/urandom >/root/data; sync")
                # A flush is a wait for the host's own disk.
                self.beside_each_other(
                    names, "400 direct reads and 50 writes with a flush", "fio", "--name=wait", "--filename=/root/data",
                    "--direct=1", "--rw=randrw", "--rwmixread=89", "--bs=4k", "--fsync=1", "--number_ios=450",
                    "--randseed=1", "--minimal")
        finally:
            self.remove(*names)

    def beside_each_other(self, names, what, *command):
        self.all_at_once(names[:1], *command)
        self.add(what, "s", [self.all_at_once(names[:1], *command) for _ in range(2)])
        self.add(f"the same in {len(names)} machines at once", "s",
                 [self.all_at_once(names, *command) for _ in range(2)])


@contextlib.contextmanager
def late_answers():
    """A server on this host that answers each byte after a while: its port."""
    class Late(socketserver.BaseRequestHandler):
        def handle(self):
            while byte := self.request.recv(1):
                time.sleep(WAIT)
                self.request.sendall(byte)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Late) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
