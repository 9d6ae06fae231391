"""The programs that are measured, and the archive that carries them to a machine."""
import io
import random
import shlex
import tarfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "Benchmarks" / "programs"


@dataclass(frozen=True)
class Program:
    """What run.sh does with it: Benchmarks/programs/run.sh.

    A program of unit s is timed; others print one value for each of their names. What a program needs beside its
    command is prepared first, untimed: a first small run also reads the program from the disk.
    """
    group: str
    names: tuple
    unit: str
    command: str
    prepare: str = ":"
    same_output: bool = False
    guests_only: bool = False

    @property
    def lower_is_better(self):
        return self.unit in ("s", "ns")


def timed(group, name, command, prepare=":", same_output=False):
    return Program(group, (name,), "s", command, prepare, same_output)


def stress(name, stressor, method, operations, group="stress"):
    """A fixed number of stress-ng's operations; its own clock leaves its slow start out."""
    choice = f" --{stressor}-method {method}" if method else ""
    options = f"--{stressor} $harts{choice} --{stressor}-ops"
    return Program(group, (f"stress_{name}",), "operations/s", f"stress {options} $(({operations} * harts))")


def micro(cost, **options):
    return Program("micro", (f"micro_{cost}",), "ns", f"./micro {cost}", "compile micro.c", **options)


def openssl(name, algorithm):
    # -mr: "+R:OPERATIONS:NAME:SECONDS" for the one size.
    return Program(
        "cpu", (name,), "MB/s",
        f"openssl speed -mr -elapsed -seconds 2 -bytes 16384 -evp {algorithm} 2>&1 | "
        "awk -F: '/^\\+R:/ {print $2 * 16384 / $4 / 1e6}'", "openssl version")


def disk(name, options, field, unit, group="disk"):
    prepare = "shared true; fio --version" if group == "share" else "fio --version"
    return Program(group, (name,), unit, f"disk {options} | cut -d';' -f{field}", prepare, guests_only=group == "share")


def share(name, command, prepare):
    """In a folder of the host."""
    return Program("share", (name,), "s", command, prepare, guests_only=True)


ZSTD = """zstd -b3 -i2 --single-thread text 2>&1 | tr '\\r' '\\n' | grep 'MB/s.*MB/s' | tail -n 1 |
  grep -o '[0-9.]* MB/s' | cut -d' ' -f1"""
JAR = "$(dirname $(readlink -f $(command -v java)))/../lib/jrt-fs.jar"
ARCHIVE = "[ -e text.7z ] || 7z a -bd -mmt1 -mx1 -y text.7z text"
FORK = "for i in $(seq 150); do /bin/true; done"

PROGRAMS = [
    timed("cpu", "7z_compress", "7z a -bd -mmt1 -mx1 -y text.7z text", "rm -f text.7z; 7z"),
    timed("cpu", "7z_extract", "for i in 1 2 3 4; do 7z x -bd -mmt1 -y -so text.7z; done", ARCHIVE, True),
    openssl("openssl_sha256", "sha256"),
    openssl("openssl_aes128cbc", "aes-128-cbc"),
    openssl("openssl_chacha20", "chacha20"),
    Program("cpu", ("rsa2048_sign", "rsa2048_verify"), "operations/s", "rsa", "openssl version"),
    Program("cpu", ("zstd3_compress", "zstd3_decompress"), "MB/s", ZSTD, "zstd --version"),
    timed("cpu", "xz1_compress", "xz -1 -T1 -c text >text.xz", "xz --version"),
    timed("cpu", "xz1_decompress", "for i in 1 2 3 4; do xz -d -c text.xz; done",
          "[ -e text.xz ] || xz -1 -k text", True),
    timed("cpu", "python_startup", "for i in 1 2 3 4 5; do python3 -c pass; done", "python3 -c pass"),
    timed("cpu", "python_nbody", "python3 nbody.py", "python3 -c pass", True),
    timed("cpu", "python_dict", "python3 dict.py", "python3 -c 'import json, re'", True),
    timed("cpu", "lua_fannkuch", "lua5.4 fannkuch.lua", "lua5.4 -v", True),
    timed("cpu", "lua_spectral", "lua5.4 spectral.lua", "lua5.4 -v", True),
    timed("cpu", "sqlite", "sqlite3 :memory: <bench.sql", "sqlite3 :memory: 'SELECT 1'", True),
    timed("cpu", "perl_regex", "perl regex.pl", "perl -e 1", True),
    timed("cpu", "gcc_O2", "gcc -O2 -w -c gen.c -o gen.o", "echo 'int x;' >x.c; gcc -O2 -c x.c -o x.o"),
    Program("cpu", ("sysbench_cpu",), "events/s", "sysbench cpu --threads=$harts --time=2 run | "
            "awk '/events per second/ {print $4}'", "sysbench --version"),
    Program("cpu", ("sysbench_memory",), "MiB/s",
            "sysbench memory --threads=$harts --memory-block-size=1K --memory-total-size=100T --time=2 run | "
            "sed -n 's/.*(\\([0-9.]*\\) MiB\\/sec).*/\\1/p'", "sysbench --version"),
    timed("cpu", "sysbench_mutex", "sysbench mutex --threads=4 --mutex-locks=40000 --mutex-loops=2000 run",
          "sysbench --version"),

    stress("int64", "cpu", "int64", 200),
    stress("double", "cpu", "double", 100),
    stress("matrixprod", "cpu", "matrixprod", 10),
    stress("fft", "cpu", "fft", 100),
    stress("memcpy", "memcpy", None, 60),
    stress("branch", "branch", None, 20000),

    timed("jit", "luajit_fannkuch", "luajit fannkuch.lua 10", "luajit -v", True),
    timed("jit", "node_mixed", "node mixed.js", "node -e 0", True),
    timed("jit", "java_jar", f"jar tf {JAR}", "java -version", True),

    Program("kernel", ("sysbench_threads",), "events/s", "sysbench threads --threads=4 --time=2 run | "
            "awk '/total time:/ {time = $3 + 0} /total number of events:/ {print $5 / time}'", "sysbench --version"),
    stress("get", "get", None, 10000, "kernel"),
    timed("kernel", "hackbench_pipes", "hackbench -p -g 2 -l 100", "hackbench -p -g 1 -l 1"),
    timed("kernel", "hackbench_sockets", "hackbench -g 2 -l 100", "hackbench -g 1 -l 1"),
    timed("kernel", "fork_exec", FORK, "/bin/true"),
    timed("kernel", "dd_pipe", "dd if=/dev/zero bs=64k count=3000 | cat"),

    micro("syscall"), micro("switch"), micro("fault"), micro("tlb"), micro("signal"), micro("indirect"),
    micro("device", guests_only=True),

    disk("disk_random_read", "--rw=randread --bs=4k --iodepth=1", 8, "IOPS"),
    disk("disk_random_read_32", "--rw=randread --bs=4k --iodepth=32", 8, "IOPS"),
    disk("disk_read", "--rw=read --bs=1m --iodepth=4", 7, "KiB/s"),
    disk("disk_write", "--rw=write --bs=1m --iodepth=4", 48, "KiB/s"),

    share("share_git_clone", "shared git clone -q /root/repository clone", "repository; shared rm -rf clone"),
    share("share_make", "shared make -s -C project", "shared rm -rf project; shared bash $PWD/project.sh; make --version"),
    share("share_copy", "shared cp -r /usr/include copy; shared rm -r copy", "cp -r /usr/include copy; rm -r copy"),
    disk("share_random_read", "--filename=/shared/data --rw=randread --bs=4k --iodepth=1", 8, "IOPS", "share"),
    disk("share_random_write", "--filename=/shared/data --rw=randwrite --bs=4k --iodepth=1", 49, "IOPS", "share"),
    disk("share_read", "--filename=/shared/data --rw=read --bs=1m --iodepth=4", 7, "KiB/s", "share"),
    disk("share_write", "--filename=/shared/data --rw=write --bs=1m --iodepth=4", 48, "KiB/s", "share"),

    Program("network", ("network_to_host",), "Mbit/s", "network", "iperf3 --version"),
    Program("network", ("network_to_guest",), "Mbit/s", "network -R", "iperf3 --version"),
]

#: From the start of the process to the shell's prompt, seen from outside.
BOOT = Program("start", ("boot",), "s", "", guests_only=True)


def plan(programs):
    """The lines that run.sh executes."""
    quoted = [[p.unit, p.prepare, p.command, *p.names] for p in programs]
    return "".join("program " + " ".join(map(shlex.quote, words)) + "\n" for words in quoted)


def text(byte_count):
    """Words that compress about as well as prose, the same ones each time."""
    source = random.Random(1)
    words = [bytes(source.choices(b"abcdefghijklmnop", k=source.randint(3, 9))) for _ in range(3000)]
    return b" ".join(source.choices(words, k=byte_count // 4))[:byte_count]


def write_archive(path, programs, settings):
    """Writes the tar file with the inputs, the plan and the settings (shell variables); PATH is a disk of the guest."""
    files = {file.name: file.read_bytes() for file in sorted(FOLDER.iterdir())}
    variables = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())
    files["settings"], files["plan"] = variables.encode(), plan(programs).encode()
    files["text"] = text(4 << 20)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
