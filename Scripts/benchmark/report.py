"""The table: medians of each program on each machine, ratios, and their geometric means."""
import math
import statistics

#: The machines that Yadori's speed is compared with, the faster one of them for each program.
PEERS = ["qemu-rv64", "rvvm"]


def speed(program, value):
    return 1 / value if program.lower_is_better else value


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def row(program, name, harts, runs):
    """One program's line; RUNS holds the values of each machine."""
    medians = {machine: statistics.median(values) for machine, values in runs.items() if values}
    speeds = {machine: speed(program, median) for machine, median in medians.items() if median > 0}
    own, peers = speeds.get("yadori"), [speeds[peer] for peer in PEERS if peer in speeds]
    return {
        "name": name, "group": program.group, "unit": program.unit, "harts": harts,
        "lowerIsBetter": program.lower_is_better,
        "machines": {machine: {"median": medians[machine], "runs": runs[machine]} for machine in medians},
        "speedOverFasterPeer": own / max(peers) if own and peers else None,
        "slowdownToNative": speeds["native"] / own if own and "native" in speeds else None,
    }


def summaries(rows):
    """One line for each group and number of harts."""
    lines = []
    for harts, group in dict.fromkeys((line["harts"], line["group"]) for line in rows):
        chosen = [line for line in rows if (line["harts"], line["group"]) == (harts, group)]
        over = {line["name"]: line["speedOverFasterPeer"] for line in chosen if line["speedOverFasterPeer"]}
        behind = {line["name"]: line["slowdownToNative"] for line in chosen if line["slowdownToNative"]}
        worst = min(over, key=over.get, default=None)
        slowest = max(behind, key=behind.get, default=None)
        lines.append({
            "harts": harts, "group": group, "programs": len(chosen),
            "compared": len(over), "speedOverFasterPeer": geometric_mean(list(over.values())),
            "worst": worst, "worstSpeedOverFasterPeer": over.get(worst),
            "comparedToNative": len(behind), "slowdownToNative": geometric_mean(list(behind.values())),
            "slowest": slowest, "slowestSlowdownToNative": behind.get(slowest),
        })
    return lines


def number(value):
    if value is None:
        return ""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}" if abs(value) >= 0.1 else f"{value:.4f}"


def counted(count, noun):
    return f"{count} {noun}{'' if count == 1 else 's'}"


def table(rows, machines):
    """The printed table: a block for each number of harts, then the summaries."""
    lines = []
    for harts in dict.fromkeys(line["harts"] for line in rows):
        lines += ["", counted(harts, "hart")]
        lines.append(f"{'program':22} {'unit':12}" + "".join(f" {name:>15}" for name in machines)
                     + f" {'over peer':>10} {'to native':>10}")
        for line in rows:
            if line["harts"] == harts:
                values = "".join(
                    f" {number(line['machines'].get(name, {}).get('median')):>15}" for name in machines)
                lines.append(f"{line['name']:22} {line['unit']:12}{values}"
                             f" {number(line['speedOverFasterPeer']):>10} {number(line['slowdownToNative']):>10}")
    peers = " and ".join(name for name in PEERS if name in machines)
    peers = f"the faster of {peers}" if " " in peers else peers
    if any(line["speedOverFasterPeer"] for line in rows):
        lines += ["", f"over peer: Yadori's speed over that of {peers}"]
    if any(line["slowdownToNative"] for line in rows):
        lines += ["to native: the host's speed over Yadori's"]
    lines.append("")
    for line in summaries(rows):
        said = []
        if line["compared"]:
            said.append(f"{number(line['speedOverFasterPeer'])} times the speed of {peers} "
                        f"({counted(line['compared'], 'program')}, worst {line['worst']} "
                        f"{number(line['worstSpeedOverFasterPeer'])})")
        if line["comparedToNative"]:
            said.append(f"{number(line['slowdownToNative'])} times slower than native "
                        f"({counted(line['comparedToNative'], 'program')}, worst {line['slowest']} "
                        f"{number(line['slowestSlowdownToNative'])})")
        if said:
            lines.append(f"{line['group']}, {counted(line['harts'], 'hart')}: " + "; ".join(said))
    return "\n".join(lines)
