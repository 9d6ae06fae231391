"""RVVM with the image."""
import lzma
import os
import re
import shutil
import socket
import struct
import subprocess
from pathlib import Path

from .machines import MEMORY, START, Machine, Unavailable, checked, qemu_img


class Rvvm(Machine):
    """RVVM has no virtio and loads no initial RAM disk: the image's is put behind the kernel, with NVMe's modules."""

    settings = {**Machine.settings, "scratch": "/dev/scratch"}
    #: The kernel numbers the NVMe disks in any order, so they are found by their places on the bus: 02 to 04.
    typed = ("ln -s $(readlink -f /dev/disk/by-path/*:04.0-nvme-1) /dev/scratch; "
             + START.format(archive="/dev/disk/by-path/*:03.0-nvme-1"))
    #: Where RVVM loads the kernel, and where the RAM disk goes: behind the device tree that OpenSBI puts at 0x82200000.
    KERNEL, INITRD = 0x8020_0000, 0x8240_0000

    def __init__(self, rvvm, firmware, qemu, image, cache):
        if not os.access(rvvm, os.X_OK):
            raise Unavailable(f"RVVM={rvvm} can't be run")
        if not Path(firmware).is_file():
            raise Unavailable(f"no firmware {firmware}: install opensbi, or set FIRMWARE to OpenSBI's fw_jump.bin")
        help_text = subprocess.run([rvvm, "-help"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
        version = re.search(r"\((v[^)]*)\)", help_text)
        super().__init__("rvvm", "RVVM " + (version[1] if version else "of an unknown version"))
        self.rvvm, self.firmware, self.image = rvvm, firmware, image
        # Its network has no address that stands for the host's loopback.
        self.server = own_address()
        self.settings = {**self.settings, "host": self.server}
        self.disk, self.kernel = cache / "rvvm-disk.raw", cache / "rvvm-kernel"
        stamp = cache / "rvvm-stamp"
        wanted = f"{image.disk} {image.disk.stat().st_mtime_ns} {image.kernel.stat().st_mtime_ns}\n"
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            source = f"driver={image.disk_format},file.driver=file,file.filename={image.disk},file.locking=off"
            checked([qemu_img(qemu), "convert", "--image-opts", source, "-O", "raw", str(self.disk)])
            self.write_kernel()
            stamp.write_text(wanted)
        self.initrd_size = self.kernel.stat().st_size - (self.INITRD - self.KERNEL)

    def write_kernel(self):
        """Writes a file that RVVM loads as the kernel: the kernel, a gap, the RAM disk with more modules."""
        kernel = self.image.kernel.read_bytes()
        if struct.unpack_from("<Q", kernel, 16)[0] > 0x8220_0000 - self.KERNEL:
            raise Unavailable("the image's kernel is too large for OpenSBI's fw_jump")
        order, members = [], []
        for path in self.module_paths("kernel/drivers/nvme/host/nvme.ko"):
            name = Path(path).name.partition(".ko")[0] + ".ko"
            order.append(name)
            members.append((f"modules/{name}", self.read(path)))
        initrd = self.image.initrd.read_bytes()
        # A later archive's files replace those of the same name.
        initrd += cpio([("modules/order", "".join(f"{n}\n" for n in old_order(initrd) + order).encode())] + members)
        self.kernel.write_bytes(kernel.ljust(self.INITRD - self.KERNEL, b"\0") + initrd)

    def module_paths(self, module):
        """A module of the image's file system, behind the modules that it needs."""
        release = re.search(rb"Linux version (\S+) ", self.image.kernel.read_bytes())
        base = f"/usr/lib/modules/{release[1].decode() if release else ''}/"
        for line in self.read_file(base + "modules.dep").decode().splitlines():
            name, _, needed = line.partition(":")
            if name.startswith(module):
                return [base + path for path in needed.split()[::-1] + [name]]
        raise Unavailable(f"the image's file system has no module {module} for RVVM")

    def read(self, path):
        content = self.read_file(path)
        return lzma.decompress(content) if path.endswith(".xz") else content

    def read_file(self, path):
        debugfs = shutil.which("debugfs", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if not debugfs:
            raise Unavailable("no debugfs to read the image's NVMe modules: install e2fsprogs")
        return subprocess.run([debugfs, "-R", f"cat {path}", str(self.disk)], capture_output=True).stdout

    def command(self, run):
        disk = run.folder / "rvvm-disk.raw"
        checked(["cp", "--sparse=always", "--reflink=auto", str(self.disk), str(disk)])
        return [self.rvvm, self.firmware, "-nogui", "-m", MEMORY, "-s", str(run.harts), "-k", str(self.kernel),
                "-i", str(disk), "-i", str(run.archive), "-i", str(run.scratch), "-cmdline",
                f"{self.image.command_line} console=ttyS0 initrdmem={self.INITRD:#x},{self.initrd_size:#x}"]


def own_address():
    """This host's address on the way out; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def cpio(files):
    """An archive for the kernel, in the format that it calls newc."""
    def member(name, mode, content):
        path = name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0]
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + path
        return header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)
    return b"".join(member(name, 0o100644, content) for name, content in files) + member("TRAILER!!!", 0, b"")


def old_order(initrd):
    """The lines of modules/order in an archive that isn't compressed."""
    position = 0
    while initrd[position:position + 6] == b"070701":
        size, name_size = (int(initrd[position + at:position + at + 8], 16) for at in (54, 94))
        name = initrd[position + 110:position + 109 + name_size]
        content = (position + 110 + name_size + 3) & ~3
        if name == b"modules/order":
            return initrd[content:content + size].decode().split()
        position = (content + size + 3) & ~3
    raise Unavailable("the image's initial RAM disk has no modules/order, or is compressed")
