"""The machines that are compared: how each is started with the image, the programs' archive and a second disk."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

MEMORY = "2G"
#: OpenJDK 21 ends at five levels of page tables, so no machine uses them.
MORE_PARAMETERS = "no5lvl"
#: Unpacks the archive in the guest and starts the programs; no marker of run.sh is in it.
START = "mkdir -p /tmp/bench; tar xf {archive} -C /tmp/bench; bash /tmp/bench/run.sh"


class Unavailable(Exception):
    """A machine can't be used on this host: one line that says why."""


def first_line(command):
    try:
        output = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"can't run {command[0]}: {error}") from None
    return (output.stdout + output.stderr).strip().partition("\n")[0]


def checked(command):
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"can't run {command[0]}: {error}") from None
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or [f"exit code {error.returncode}"]
        raise Unavailable(f"{Path(command[0]).name}: {lines[-1]}") from None


class Image:
    """An image's files and its kernel command line."""

    def __init__(self, name):
        home = os.environ.get("YADORI_HOME") or Path.home() / ".local/share/yadori"
        self.name = name
        self.folder = Path(home) / "images" / name
        self.kernel, self.initrd = self.folder / "kernel", self.folder / "initrd"
        self.kept_code = self.folder / "kept-code"
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text())
            self.disk = self.folder / manifest["disk"]["file"]["name"]
            self.disk_format = manifest["disk"]["format"]
            self.disk_size = manifest["disk"]["virtualByteCount"]
            self.command_line = f"{manifest['commandLine']} {MORE_PARAMETERS}"
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable(f"can't read the image {name} in {self.folder}: {error}") from None


class Run:
    """What one run of a machine is given."""

    def __init__(self, folder, harts, scratch):
        self.folder, self.harts, self.archive, self.scratch = folder, harts, folder / "programs.tar", scratch

    def shared(self):
        """A new folder that the machine is to share."""
        folder = self.folder / "shared"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


class Machine:
    """A machine that a command starts. Its console is the command's standard input and output."""

    #: What run.sh is told: the second disk, the address of the host, whether fio goes around the guest's page cache,
    #: how many turns each program has, and how it shares a folder of the host.
    settings = {"machine": "guest", "scratch": "/dev/vdc", "host": "10.0.2.2", "direct": 1, "turns": 1, "share": ""}
    #: What is typed at the prompt; None where the programs start by themselves.
    typed = START.format(archive="/dev/vdb")
    #: The address of this host that a server for it listens on.
    server = "127.0.0.1"
    #: What ends its process.
    ending = signal.SIGTERM

    def __init__(self, name, version):
        self.name, self.version = name, version

    def command(self, run):
        raise NotImplementedError

    def input(self, run):
        """A file to give as standard input in place of a pipe."""
        return None


class Yadori(Machine):
    settings = {**Machine.settings, "share": "virtiofs"}

    def __init__(self, yadori, image):
        super().__init__("yadori", first_line([yadori, "--version"]))
        self.yadori, self.image = yadori, image

    #: The machine that runs the programs once for the code that is kept of them.
    TRAINING = "bench-training"
    is_training = False

    @contextlib.contextmanager
    def training(self):
        """Runs in here are of a machine with a name; its translated code is kept for all runs behind."""
        self.remove()
        self.is_training = True
        try:
            yield
        finally:
            self.is_training = False
        try:
            checked([self.yadori, "image", "warm", self.image.name, "--from", self.TRAINING])
        finally:
            self.remove()

    def remove(self):
        subprocess.run([self.yadori, "remove", "--force", self.TRAINING], capture_output=True)

    def command(self, run):
        kind = ["--name", self.TRAINING] if self.is_training else ["--temporary"]
        return [self.yadori, "run", self.image.name, *kind, "-m", MEMORY, "-c", str(run.harts),
                "--append", MORE_PARAMETERS, "--share", f"{run.shared()}:/shared", "--disk", f"{run.archive},ro,format=raw",
                "--disk", f"{run.scratch},format=raw"]


class Qemu(Machine):
    settings = {**Machine.settings, "share": "9p"}

    def __init__(self, qemu, model, image):
        super().__init__(f"qemu-{model}", first_line([qemu, "--version"]))
        models = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True).stdout.split()
        if model not in models:
            raise Unavailable(f"{self.version or qemu} has no -cpu {model}")
        self.qemu, self.model, self.image = qemu, model, image
        self.qemu_img = qemu_img(qemu)
        first_line([self.qemu_img, "--version"])

    def command(self, run):
        overlay = run.folder / "overlay.qcow2"
        overlay.unlink(missing_ok=True)
        # The image is only read. The lock of a Yadori that runs it beside this would stop QEMU.
        checked([self.qemu_img, "create", "-q", "-u", "-f", "qcow2", "-b", str(self.image.disk),
                 "-F", self.image.disk_format, str(overlay), str(self.image.disk_size)])
        disks = [(overlay, "qcow2", ",backing.file.locking=off"), (run.archive, "raw", ",readonly=on"),
                 (run.scratch, "raw", "")]
        command = [self.qemu, "-M", "virt", "-cpu", self.model, "-m", MEMORY, "-smp", str(run.harts), "-nographic",
                   "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd),
                   "-append", f"{self.image.command_line} console=ttyS0",
                   "-virtfs", f"local,path={run.shared()},mount_tag=shared,security_model=mapped-xattr",
                   "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile="]
        for number, (path, kind, flags) in enumerate(disks):
            command += ["-drive", f"if=none,id=d{number},file={path},format={kind}{flags}",
                        "-device", f"virtio-blk-pci,drive=d{number}"]
        return command


class Native(Machine):
    """The same Debian packages of the host's own architecture in a folder, by chroot: needs root. Its mounts and
    processes are its own, so none is left."""

    settings = {**Machine.settings, "machine": "chroot", "scratch": "/tmp/scratch", "host": "127.0.0.1", "direct": 0,
                "turns": 3}
    typed = None
    ending = signal.SIGKILL
    SCRIPT = """set -e
      mount -t tmpfs -o mode=1777 none "$1/tmp"
      mount -t proc none "$1/proc"
      mount --rbind /dev "$1/dev"
      mount --rbind /sys "$1/sys"
      mkdir "$1/tmp/bench"
      : >"$1/tmp/scratch"
      mount --bind "$2" "$1/tmp/scratch"
      tar xf - -C "$1/tmp/bench"
      exec taskset -c "$3" chroot "$1" /bin/bash /tmp/bench/run.sh </dev/null"""

    def __init__(self, folder):
        if os.geteuid() != 0:
            raise Unavailable("NATIVE needs root, for chroot")
        if not (Path(folder) / "bin/bash").exists():
            raise Unavailable(f"NATIVE={folder} is no folder with a Debian system")
        version = (Path(folder) / "etc/debian_version").read_text().strip()
        super().__init__("native", f"Debian {version}, {os.uname().machine}")
        self.folder = folder

    def command(self, run):
        processors = ",".join(str(n) for n in sorted(os.sched_getaffinity(0))[:run.harts])
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", self.SCRIPT, "sh", self.folder,
                str(run.scratch), processors]

    def input(self, run):
        return run.archive


def qemu_img(qemu):
    """The qemu-img beside QEMU, else the one in PATH."""
    beside = Path(shutil.which(qemu) or qemu).parent / "qemu-img"
    return str(beside) if os.access(beside, os.X_OK) else "qemu-img"
