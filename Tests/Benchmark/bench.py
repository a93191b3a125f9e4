#!/usr/bin/env python3
"""How fast Portcullis is, beside Debian's tgt and beside what the machine can do: `make bench`.

All three serve a file of their own from the same folder, over a clear portal on 127.0.0.1, each with its defaults. The client is
QEMU's (`qemu-img bench` over libiscsi).

The cases that begin with `tls-` go through TLS 1.3, mutually authenticated, AES-128-GCM. `ours` and `tgt` have the same stunnel on the
client's side; on the target's, ours has a TLS portal, and tgt a stunnel in front of it. `connect` is tgt-connect in place of the client's
stunnel, to our portal.

In each round every case is run on each of them, one right after the other; what
counts is the ratio within a round, and of these the median. So a machine that is slow for a while is slow for all.

The limit (limit.c) does one pread, pwrite or fdatasync for each command and nothing else. What throughput does not tell is in load.py.
"""
import argparse, contextlib, dataclasses, datetime, json, os, pathlib, platform, shutil, signal, statistics, subprocess
import sys, tempfile, time

import chart, load
from rig import IMAGE_MIB, INITIATOR, IQN, ROOT, Daemon, Keys, Limit, Through, image, last_words, stunnel_client, stunnel_server, tgt_connect

PATIENCE = 180  # seconds for one run of the client: some hundred times what the slowest takes


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    what: str
    writes: bool
    size: int
    depth: int
    requests: int
    sessions: int = 1
    tls: bool = False


CASES = [
    Case("r4k-qd1", "read 4 KiB, one at a time", False, 4 << 10, 1, 15000),
    Case("w4k-qd1", "write 4 KiB, one at a time", True, 4 << 10, 1, 15000),
    Case("r4k-qd32", "read 4 KiB, 32 at once", False, 4 << 10, 32, 80000),
    Case("w4k-qd32", "write 4 KiB, 32 at once", True, 4 << 10, 32, 60000),
    Case("r256k-qd8", "read 256 KiB, 8 at once", False, 256 << 10, 8, 6000),
    Case("w256k-qd8", "write 256 KiB, 8 at once", True, 256 << 10, 8, 4000),
    Case("r4k-qd32-x4", "read 4 KiB, 4 sessions with 32 each", False, 4 << 10, 32, 20000, 4),
    Case("w4k-qd32-x4", "write 4 KiB, 4 sessions with 32 each", True, 4 << 10, 32, 15000, 4),
    Case("tls-r4k-qd32", "read 4 KiB, 32 at once, TLS", False, 4 << 10, 32, 40000, tls=True),
    Case("tls-w4k-qd32", "write 4 KiB, 32 at once, TLS", True, 4 << 10, 32, 30000, tls=True),
    Case("tls-r256k-qd8", "read 256 KiB, 8 at once, TLS", False, 256 << 10, 8, 3000, tls=True),
    Case("tls-w256k-qd8", "write 256 KiB, 8 at once, TLS", True, 256 << 10, 8, 2000, tls=True),
]
# What is compared, as far as both were measured.
RATIOS = [("ours", "tgt"), ("ours", "limit"), ("tgt", "limit"), ("connect", "tgt")]


def run(case, subject):
    """Requests per second, and microseconds of CPU that the target needs for one."""
    command = ["qemu-img", "bench", "-q", "-t", "none", "-c", str(case.requests), "-d", str(case.depth), "-s", str(case.size)]
    command += ["-w"] * case.writes
    command += ["--image-opts", f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=127.0.0.1:{subject.port},file.target={IQN},file.lun=1,"
                f"file.initiator-name={INITIATOR}"]
    cpu, begin = subject.cpu_seconds(), time.monotonic()
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(case.sessions)]
    try:
        for client in clients:
            _, complaint = client.communicate(timeout=PATIENCE)
            if client.returncode:
                sys.exit(f"{case.name}: {complaint.strip()[:400]}\n{last_words()}")
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
    seconds = time.monotonic() - begin
    requests = case.requests * case.sessions
    return requests / seconds, (subject.cpu_seconds() - cpu) / requests * 1e6


def measure(cases, subjects, rounds):
    """The figures of every round: case → subject → [(rate, cpu)]. Round 0 warms up; who is first changes from round to round.

    `subjects` are those in clear (False) and those through TLS (True), by name.
    """
    figures = {case.name: {name: [] for name in subjects[case.tls]} for case in cases}
    for number in range(rounds + 1):
        for case in cases:
            names = list(subjects[case.tls])
            for name in names[number % len(names):] + names[: number % len(names)]:
                figure = run(case, subjects[case.tls][name])
                if number:
                    figures[case.name][name].append(figure)
        print(f"round {number} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return figures


def summary(figures):
    """Medians of one case, and ratios within the rounds."""
    rates = {name: [rate for rate, _ in rounds] for name, rounds in figures.items()}
    return {
        "rate": {name: round(statistics.median(each)) for name, each in rates.items()},
        "cpu": {name: round(statistics.median(cpu for _, cpu in each), 1) for name, each in figures.items()},
        "rounds": {name: [round(rate) for rate in each] for name, each in rates.items()},
        "ratio": ratios(rates, RATIOS),
    }


def ratios(rounds, pairs):
    """Of those pairs that were both measured: within the rounds, of these the median, the least and the most."""
    found = {}
    for one, other in pairs:
        if one in rounds and other in rounds:
            each = [a / b for a, b in zip(rounds[one], rounds[other])]
            found[f"{one}/{other}"] = {
                name: float(f"{of(each):.4g}") for name, of in [("median", statistics.median), ("least", min), ("most", max)]}
    return found


def table(results, cases, beside):
    """As text that is a table in Markdown, too: one for the cases in clear, one for those through TLS, one for what throughput does not tell."""
    shown = [(False, ["ours", "tgt", "limit"], [("ours", "tgt"), ("ours", "limit"), ("tgt", "limit")]),
             (True, ["ours", "connect", "tgt"], [("ours", "tgt"), ("connect", "tgt")])]
    parts = []
    for tls, names, ratios in shown:
        chosen = {case.name: results[case.name] for case in cases if case.tls == tls}
        if chosen:
            parts.append(one_table(chosen, names, ratios))
    if beside:
        parts.append(aligned([["measure", "medians", "goal", "ratio", "median", "least…most"], *load.rows(beside)], left=4))
    return "\n\n".join(parts)


def one_table(results, names, ratios):
    def number(result, kind, name):
        return f"{result[kind][name]:,.{0 if kind == 'rate' else 1}f}" if name in result[kind] else "–"

    def ratio(result, pair):
        found = result["ratio"].get("/".join(pair))
        return [f"{found['median']:.2f}", f"{found['least']:.2f}…{found['most']:.2f}"] if found else ["–", "–"]

    # The spread is shown of what is compared with tgt.
    def columns(pair, cells):
        return cells if pair[1] == "tgt" else cells[:1]

    head = ["case", *(f"{name} /s" for name in names)]
    for pair in ratios:
        head += columns(pair, ["/".join(pair), "least…most"])
    head += [f"CPU µs: {names[0]}", *names[1:]]
    rows = []
    for name, result in results.items():
        row = [name, *(number(result, "rate", who) for who in names)]
        for pair in ratios:
            row += columns(pair, ratio(result, pair))
        rows.append(row + [number(result, "cpu", who) for who in names])
    return aligned([head, *rows])


def aligned(rows, left=1):
    """The first of the rows is the head; so many columns are aligned to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(cells):
        return f"| {' | '.join(cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in enumerate(zip(cells, widths)))} |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if column < left else ":") for column, width in enumerate(widths)) + "|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def first_line(command):
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip().split("\n")[0]
    return "unknown"


def machine():
    def value(path, key):
        lines = pathlib.Path(path).read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "unknown")

    return {
        "cpu": value("/proc/cpuinfo", "model name"), "cpus": os.cpu_count(),
        "memory_gib": round(int(value("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)),
        "kernel": platform.release(), "debian": pathlib.Path("/etc/debian_version").read_text().strip(),
        "qemu": first_line(["qemu-img", "--version"]),
    }


def kind_of(folder):
    return first_line(["stat", "-f", "-c", "%T", folder])


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tgtd", default=str(ROOT / ".build/release/tgtd"))
    parser.add_argument("--tgtadm", default=str(ROOT / ".build/release/tgtadm"))
    parser.add_argument("--connect", default=str(ROOT / ".build/release/tgt-connect"))
    parser.add_argument("--load", default=str(ROOT / ".build/release/iscsi-load"))
    parser.add_argument("--micro", default=str(ROOT / ".build/release/micro-benchmark"))
    parser.add_argument("--peer", metavar="FOLDER", default="/usr/sbin", help="where Debian's tgtd and tgtadm are; without them it is left out")
    parser.add_argument("--dir", default="/dev/shm", help=f"where the files lie that are served: {3 * IMAGE_MIB >> 10} GiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(each.name for each in [*CASES, *load.MEASURES]))
    parser.add_argument("--seconds", type=float, default=2, help="of one run of iscsi-load")
    parser.add_argument("--result", metavar="NAME", help="writes NAME.json and NAME.svg")
    return parser.parse_args()


def main():
    names = CHOSEN.cases.split(",")
    cases = [case for case in CASES if case.name in names]
    measures = [each for each in load.MEASURES if each.name in names]
    if CHOSEN.rounds < 1 or set(names) != {each.name for each in [*cases, *measures]}:
        sys.exit("there is nothing to measure, or nothing of such a name")
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-bench-", dir=CHOSEN.dir))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)

        def start(subject):
            stack.callback(subject.stop)
            return subject

        clear = {"ours": start(Daemon((CHOSEN.tgtd, CHOSEN.tgtadm), folder, image(folder, "ours")))}
        peer = pathlib.Path(CHOSEN.peer)
        if os.access(peer / "tgtd", os.X_OK):
            clear["tgt"] = start(Daemon((str(peer / "tgtd"), str(peer / "tgtadm")), folder, image(folder, "tgt")))
        else:
            print(f"without Debian's tgt: it is not in {peer}", file=sys.stderr)
        clear["limit"] = start(Limit(folder, image(folder, "limit")))
        secure = {}
        if any(case.tls for case in cases):
            keys = Keys(folder)
            ours = clear["ours"].add_tls_portal(keys)
            secure["ours"] = Through(clear["ours"], start(stunnel_client(folder, keys, ours)).port)
            secure["connect"] = Through(clear["ours"], start(tgt_connect(folder, keys, CHOSEN.connect, ours)).port)
            if "tgt" in clear:
                server = start(stunnel_server(folder, keys, clear["tgt"]))
                secure["tgt"] = Through(clear["tgt"], start(stunnel_client(folder, keys, server.port)).port, [server])
        before = os.getloadavg()[0]
        figures = measure(cases, {False: clear, True: secure}, CHOSEN.rounds) if cases else {}
        laboratory = load.Laboratory(stack, folder, clear, CHOSEN.seconds, CHOSEN.load, CHOSEN.micro)
        found = load.measure(measures, laboratory, CHOSEN.rounds) if measures else {}

    results = {case.name: summary(figures[case.name]) for case in cases}
    beside = {each.name: load.summary(each, found[each.name], ratios) for each in measures}
    print(table(results, cases, beside))
    if CHOSEN.result:
        report = {
            "date": datetime.date.today().isoformat(), "commit": first_line(["git", "rev-parse", "--short", "HEAD"]), "machine": machine(),
            "folder": kind_of(CHOSEN.dir), "rounds": CHOSEN.rounds, "load_before": round(before, 1),
            "units": {"rate": "requests a second, median", "cpu": "microseconds of the target's CPU for a request, median"},
            "cases": {case.name: {**dataclasses.asdict(case), **results[case.name]} for case in cases},
            "beside": beside,
        }
        path = pathlib.Path(CHOSEN.result)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        path.with_suffix(".svg").write_text(chart.draw(report))
        print(f"written: {path.with_suffix('.json')}, {path.with_suffix('.svg')}", file=sys.stderr)


if __name__ == "__main__":
    CHOSEN = options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that who ends us leaves no target behind
    main()
