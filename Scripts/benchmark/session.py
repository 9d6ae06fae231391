"""One run of a machine: from the start of its process to the last program."""
import contextlib
import os
import re
import selectors
import subprocess
import time
from dataclasses import dataclass, field

PROMPT = re.compile(rb":~# ")
#: Between the prompt and the first key: the shell is still setting its terminal up.
SETTLE = 1.5
BOOT_LIMIT = 300
PROGRAM_LIMIT = 180


@dataclass
class Findings:
    """What was read from a machine."""
    boot: float = None
    values: dict = field(default_factory=dict)
    outputs: dict = field(default_factory=dict)
    failures: dict = field(default_factory=dict)
    #: Where the machine stopped answering; None where it came to the end.
    stuck: str = None
    why: str = ""
    #: The guest's seconds for each of the host's, over all programs.
    clock: float = None


class Console:
    """A process whose output is read line by line, with a time limit."""

    def __init__(self, command, given):
        self.process = subprocess.Popen(
            command, stdin=given or subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.pending = b""
        self.has_ended = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def read_until(self, expression, limit):
        """What was read up to the expression's match; None at the end or after the limit."""
        deadline = time.monotonic() + limit
        while True:
            match = expression.search(self.pending)
            if match:
                self.pending = self.pending[match.end():]
                return match
            if not self.selector.select(max(0, deadline - time.monotonic())):
                return None
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                self.has_ended = True
                return None
            self.pending += more

    def type(self, line):
        # A machine that has ended is noticed when it is read.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def silence(self):
        """Why nothing more was read."""
        lines = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", self.pending).decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "none")
        return f"{'ended' if self.has_ended else 'no answer'}; its last line: {last}"

    def has_exited(self, limit):
        try:
            self.process.wait(limit)
            return True
        except subprocess.TimeoutExpired:
            return False

    def end(self, signal):
        """Ends the process, first with the signal."""
        self.process.send_signal(signal)
        if not self.has_exited(10):
            self.process.kill()
            self.process.wait()
        self.selector.close()
        self.process.stdout.close()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


def run(machine, given, progress=lambda name, seconds: None):
    """Starts the machine and reads what its programs print; PROGRESS is told how long each took, all in all."""
    findings = Findings()
    started = time.monotonic()
    path = machine.input(given)
    with open(path if path else os.devnull, "rb") as file:
        console = Console(machine.command(given), file if path else None)
    try:
        if machine.typed:
            if not console.read_until(PROMPT, BOOT_LIMIT):
                findings.stuck, findings.why = "boot", console.silence()
                return findings
            findings.boot = time.monotonic() - started
            time.sleep(SETTLE)
            console.type(machine.typed)
        read_results(console, findings, progress)
        return findings
    finally:
        console.end(machine.ending)


def read_results(console, findings, progress):
    current, since, clock = None, 0, None
    while True:
        match = console.read_until(re.compile(rb"(?:^|\n)@(\w+)(?: ([^\r\n]*))?\r?(?=\n)"), PROGRAM_LIMIT)
        if not match:
            findings.stuck, findings.why = current or "boot", console.silence()
            return
        kind, words = match[1].decode(), (match[2] or b"").decode(errors="replace").split(" ", 1)
        rest = words[1] if len(words) > 1 else ""
        if current and kind in ("start", "clock"):
            progress(current, time.monotonic() - since)
        if kind == "end":
            # It powers itself off, and so cleans up behind itself.
            console.has_exited(10)
            return
        elif kind == "start":
            current, since = words[0], time.monotonic()
        elif kind == "value":
            try:
                value = float(rest)
                findings.values.setdefault(words[0], []).append(value)
            except ValueError:
                findings.failures[words[0]] = f"printed {rest!r}"
        elif kind == "output":
            findings.outputs[words[0]] = rest
        elif kind == "failed":
            findings.failures[words[0]] = rest
        elif kind == "clock":
            host, guest = time.monotonic(), float(words[0])
            if clock and host - clock[0] > 5:
                findings.clock = (guest - clock[1]) / max(host - clock[0], 1e-9)
            clock = (host, guest)
