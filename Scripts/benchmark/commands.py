"""Rows of machines for one command each, beside QEMU's user mode, which runs the same programs without a system."""
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark.rows import RUNS, Rows

COMMANDS = [["true"], ["gcc", "--version"], ["python3", "-c", "pass"]]
QEMU = "qemu-riscv64"
#: The programs and what they load, as an archive: all that they need is in there by the names they know.
ARCHIVE = """
for program in /usr/bin/true /usr/bin/gcc /usr/bin/python3; do
  echo $program && ldd $program | grep -o '/[^ ]*'
done | sort -u >/tmp/files
python3 -c 'import os; print(os.path.dirname(os.__file__))' >>/tmp/files
tar ch --exclude test -T /tmp/files
"""


class Commands(Rows):
    def commands(self):
        self.run("run", "--rm", self.image, "--", "true")
        for command in COMMANDS:
            self.add(f"run --rm -- {' '.join(command)}", "ms",
                     [self.timed("run", "--rm", self.image, "--", *command) for _ in range(RUNS)])
        if not shutil.which(QEMU):
            print(f"bench: without {QEMU}: it isn't in PATH", file=sys.stderr)
            return
        with tempfile.TemporaryDirectory() as folder:
            self.unpack(folder)
            for command in COMMANDS:
                self.add(f"{QEMU} {' '.join(command)}", "ms", [self.emulated(folder, command) for _ in range(RUNS)])

    def unpack(self, folder):
        archive = Path(folder) / "archive.tar"
        with open(archive, "wb") as file:
            subprocess.run([self.yadori, "run", "--rm", "--no-share", self.image, "--", "sh", "-c", ARCHIVE],
                           stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL)
        if subprocess.run(["tar", "xf", archive, "-C", folder], stderr=subprocess.DEVNULL).returncode != 0:
            raise RuntimeError(f"the programs for {QEMU} can't be taken out of the image")

    def emulated(self, folder, command):
        program = str(Path(folder, "usr/bin", command[0]))
        start = time.monotonic()
        result = subprocess.run([QEMU, "-L", folder, program, *command[1:]], stdin=subprocess.DEVNULL,
                                capture_output=True)
        if result.returncode != 0:
            raise RuntimeError(f"{QEMU} {command[0]}: {result.stderr.decode(errors='replace').strip()}")
        return (time.monotonic() - start) * 1000
