"""What the parts that measure Yadori's machines have in common."""
import json
import subprocess
import time

from benchmark.loops import row

RUNS = 5
#: Seconds in which a system that is up does what it had put off.
REST = 5


class Rows:
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

    def status(self, name):
        return json.loads(self.run("inspect", "--json", name))[0]["status"]

    def wait_for_boot(self, name):
        """Till a machine's system is up, has its network, and has come to rest."""
        self.run("exec", name, "--", "systemctl", "is-system-running", "--wait", check=False)
        self.run("exec", name, "--", "/usr/lib/systemd/systemd-networkd-wait-online", "--any", check=False)
        time.sleep(REST)

    def remove(self, *names):
        self.run("remove", "-f", *names, check=False)

    def all_at_once(self, names, *command):
        """Seconds that a command takes in all of these machines, run at the same time."""
        start = time.monotonic()
        running = [subprocess.Popen([self.yadori, "exec", name, "--", *command], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL) for name in names]
        if any([process.wait() for process in running]):
            raise RuntimeError(f"{command[0]} failed in a machine")
        return time.monotonic() - start
