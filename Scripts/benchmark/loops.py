"""Rows of Yadori alone: loops by its own counters, and boots, with each engine."""
import re
import statistics
import subprocess
import sys
import time

RUNS = 5
BOOTS = 3
LOOPS = ["integer-loop", "float-loop", "memory-loop"]
ENGINES = ["interpreter", "translator"]


def measure_loop(yadori, guests, name, engine):
    """Million guest instructions a second of one loop, by its own counters (time in 10 MHz ticks)."""
    command = [yadori, "run", str(guests / f"{name}.elf"), "-m", "256M", "--engine", engine]
    output = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    match = re.search(r"(\d+) instructions, (\d+) ticks", output)
    if not match:
        sys.exit(f"bench: {name} printed no counts: {output!r}; \"make guests\" builds it")
    return int(match[1]) / (int(match[2]) / 10)


def measure_boot(yadori, image, engine):
    """Seconds from process start to the shell's or login prompt of an image; None where it isn't built."""
    if subprocess.run([yadori, "image", "info", image], capture_output=True).returncode != 0:
        return None
    start = time.monotonic()
    process = subprocess.Popen(
        [yadori, "run", image, "--temporary", "--net", "none", "--engine", engine],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seen = b""
    try:
        while True:
            byte = process.stdout.read1(4096)
            if not byte:
                sys.exit(f"bench: {image} ended before its prompt")
            seen += byte
            if re.search(rb"(:~# |login: |\$ )", seen):
                return time.monotonic() - start
    finally:
        process.kill()
        process.wait()


def row(name, unit, values):
    return {"name": name, "unit": unit, "median": statistics.median(values), "runs": values}


def measure(yadori, guests):
    rows = []
    for engine in ENGINES:
        for name in LOOPS:
            values = [measure_loop(yadori, guests, name, engine) for _ in range(RUNS)]
            rows.append(row(f"{name}, {engine}", "million instructions/s", values))
        for image in ["tiny", "debian"]:
            values = [measure_boot(yadori, image, engine) for _ in range(BOOTS)]
            if None not in values:
                rows.append(row(f"{image} to prompt, {engine}", "s", values))
    return rows


def table(rows):
    lines = [f"{'what':48} {'median':>10} {'min':>10} {'max':>10}  unit"]
    for line in rows:
        lines.append(f"{line['name']:48} {line['median']:10.1f} {min(line['runs']):10.1f} {max(line['runs']):10.1f}"
                     f"  {line['unit']}")
    return "\n".join(lines)
