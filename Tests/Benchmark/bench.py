#!/usr/bin/env python3
"""How fast Portcullis is, beside Debian's tgt and beside what the machine can do: `make bench`.

All three serve a file of their own from the same folder, over a clear portal on 127.0.0.1, each with its defaults. The client is
QEMU's (`qemu-img bench` over libiscsi).

The cases that begin with `tls-` go through TLS 1.3, mutually authenticated, AES-128-GCM. `ours` and `tgt` have the same stunnel on the
client's side; on the target's, ours has a TLS portal, and tgt a stunnel in front of it. `connect` is tgt-connect in place of the client's
stunnel, to our portal.

In each round every case is run on each of them, one right after the other; what
counts is the ratio within a round, and of these the median. So a machine that is slow for a while is slow for all.

The limit (limit.c) does one pread or pwrite for each command and nothing else.
"""
import argparse, contextlib, dataclasses, datetime, json, os, pathlib, platform, shutil, signal, socket, statistics, subprocess
import sys, tempfile, time

import chart

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
IQN = "iqn.2026-11.org.example:bench"
# Whom our portal lets in: what the client calls itself is what the certificate says.
INITIATOR = "iqn.2026-11.org.example:client"
IMAGE_MIB = 1024
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


class Subject:
    """A program that listens on a port: a target, or what stands before one."""

    def __init__(self, command, port, environment=None):
        self.port = port
        self.process = subprocess.Popen(command, stdout=LOG, stderr=LOG, env=environment)
        end = time.monotonic() + 10
        while True:
            if self.process.poll() is not None:
                sys.exit(f"{command[0]} has ended with {self.process.returncode}; its last words:\n{last_words()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                return
            if time.monotonic() > end:
                self.stop()
                sys.exit(f"{command[0]} does not listen on port {port}:\n{last_words()}")
            time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:  # tgt's daemon does not mind SIGTERM while it has targets
            self.process.kill()
            self.process.wait()

    def cpu_seconds(self):
        """Of its processes: its own, and those that this one has started."""
        parents, used = {}, {}
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[pid] = int(fields[1])
                used[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        def is_ours(pid):
            return pid == self.process.pid or pid in parents and is_ours(parents[pid])

        return sum(seconds for pid, seconds in used.items() if is_ours(pid))


def daemon(tgtd, tgtadm, control, folder, backing):
    """A tgtd, ours or tgt's: both are told the same."""
    port = free_port()
    environment = dict(os.environ, TGT_IPC_SOCKET=str(folder / f"socket-{control}"))
    subject = Subject([tgtd, "-f", "-C", str(control), "--iscsi", f"portal=127.0.0.1:{port}"], port, environment)
    try:
        for words in (
            f"--op new --mode target --tid 1 -T {IQN}",
            f"--op new --mode logicalunit --tid 1 --lun 1 -b {backing} --bstype rdwr",
            "--op bind --mode target --tid 1 -I ALL",
        ):
            command = [tgtadm, "-C", str(control), "--lld", "iscsi", *words.split()]
            if subprocess.run(command, stdout=LOG, stderr=LOG, env=environment).returncode:
                sys.exit(f"{' '.join(command)} has failed:\n{last_words()}")
    except BaseException:
        subject.stop()
        raise
    return subject


def limit(folder, backing):
    binary = folder / "limit"
    subprocess.run(["gcc", "-O2", "-pthread", "-o", binary, HERE / "limit.c"], check=True)
    port = free_port()
    return Subject([binary, str(port), backing], port)


class Through:
    """A target that is reached through others; what stands on its host counts as its own."""

    def __init__(self, target, port, beside=()):
        self.target, self.port, self.beside = target, port, beside

    def cpu_seconds(self):
        return self.target.cpu_seconds() + sum(other.cpu_seconds() for other in self.beside)


class Keys:
    """A certificate authority, a portal of it on 127.0.0.1 and an initiator."""

    def __init__(self, folder):
        self.pki = folder / "pki"
        for words in (["ca"], ["portal", "127.0.0.1"], ["initiator", INITIATOR]):
            subprocess.run([ROOT / "certs/issue", "-d", self.pki, *words], check=True, stdout=LOG, stderr=LOG)
        self.ca = self.pki / "ca.pem"

    def pair(self, which):
        folder = self.pki / which
        return folder / "certificate.pem", folder / "key.pem"


def stunnel(folder, connect, more):
    port = free_port()
    file = folder / f"stunnel-{port}.conf"
    file.write_text("\n".join([
        "foreground = yes", "syslog = no", "pid =", "debug = warning", "socket = l:TCP_NODELAY=1", "socket = r:TCP_NODELAY=1", "[portal]",
        f"accept = 127.0.0.1:{port}", f"connect = 127.0.0.1:{connect}", "sslVersionMin = TLSv1.3", "ciphersuites = TLS_AES_128_GCM_SHA256", *more, ""]))
    return Subject(["stunnel", str(file)], port)


def stunnel_server(folder, keys, target):
    certificate, key = keys.pair("portals/127.0.0.1")
    return stunnel(folder, target.port, [f"cert = {certificate}", f"key = {key}", f"CAfile = {keys.ca}", "verifyChain = yes"])


def stunnel_client(folder, keys, port):
    certificate, key = keys.pair(f"initiators/{INITIATOR}")
    return stunnel(folder, port, [
        "client = yes", f"cert = {certificate}", f"key = {key}", f"CAfile = {keys.ca}", "verifyChain = yes", "checkIP = 127.0.0.1"])


def tgt_connect(folder, keys, program, port):
    certificate, key = keys.pair(f"initiators/{INITIATOR}")
    listen = free_port()
    file = folder / f"connect-{listen}.yaml"
    file.write_text(
        f"portals:\n  - listen: 127.0.0.1:{listen}\n    connect: 127.0.0.1:{port}\n    ca: {keys.ca}\n"
        f"    certificate: {certificate}\n    key: {key}\n")
    return Subject([program, "--config", str(file)], listen)


def tls_portal(keys, tgtadm, control, folder):
    """A TLS portal of a daemon of ours that runs."""
    port = free_port()
    certificate, key = keys.pair("portals/127.0.0.1")
    words = f"portal=127.0.0.1:{port},tls=required,certificate={certificate},key={key},client-ca={keys.ca},client-auth=required"
    command = [tgtadm, "-C", str(control), "--lld", "iscsi", "--op", "new", "--mode", "portal", "--param", words]
    if subprocess.run(command, stdout=LOG, stderr=LOG, env=dict(os.environ, TGT_IPC_SOCKET=str(folder / f"socket-{control}"))).returncode:
        sys.exit(f"{' '.join(command)} has failed:\n{last_words()}")
    return port


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def image(folder, name):
    """A file of random bytes: allocated, so that nobody measures how holes are filled."""
    path = folder / f"{name}.img"
    with open(path, "wb") as file:
        for _ in range(IMAGE_MIB):
            file.write(os.urandom(1 << 20))
    return str(path)


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
    result = {
        "rate": {name: round(statistics.median(each)) for name, each in rates.items()},
        "cpu": {name: round(statistics.median(cpu for _, cpu in each), 1) for name, each in figures.items()},
        "rounds": {name: [round(rate) for rate in each] for name, each in rates.items()},
        "ratio": {},
    }
    for one, other in RATIOS:
        if one in rates and other in rates:
            ratios = [a / b for a, b in zip(rates[one], rates[other])]
            result["ratio"][f"{one}/{other}"] = {
                "median": round(statistics.median(ratios), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3)}
    return result


def table(results, cases):
    """As text that is a table in Markdown, too: one for the cases in clear, one for those through TLS."""
    shown = [(False, ["ours", "tgt", "limit"], [("ours", "tgt"), ("ours", "limit"), ("tgt", "limit")]),
             (True, ["ours", "connect", "tgt"], [("ours", "tgt"), ("connect", "tgt")])]
    parts = []
    for tls, names, ratios in shown:
        chosen = {case.name: results[case.name] for case in cases if case.tls == tls}
        if chosen:
            parts.append(one_table(chosen, names, ratios))
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
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells):
        aligned = [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(cells, widths))]
        return f"| {' | '.join(aligned)} |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


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


def last_words():
    LOG.flush()
    return "\n".join(pathlib.Path(LOG.name).read_text(errors="replace").splitlines()[-10:])


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tgtd", default=str(ROOT / ".build/release/tgtd"))
    parser.add_argument("--tgtadm", default=str(ROOT / ".build/release/tgtadm"))
    parser.add_argument("--connect", default=str(ROOT / ".build/release/tgt-connect"))
    parser.add_argument("--peer", metavar="FOLDER", default="/usr/sbin", help="where Debian's tgtd and tgtadm are; without them it is left out")
    parser.add_argument("--dir", default="/dev/shm", help=f"where the files lie that are served: {3 * IMAGE_MIB >> 10} GiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--result", metavar="NAME", help="writes NAME.json and NAME.svg")
    return parser.parse_args()


def main():
    cases = [case for case in CASES if case.name in CHOSEN.cases.split(",")]
    if not cases or CHOSEN.rounds < 1:
        sys.exit("there is nothing to measure")
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-bench-", dir=CHOSEN.dir))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        subjects = {False: {}, True: {}}
        clear = subjects[False]

        def start(subject):
            stack.callback(subject.stop)
            return subject

        def enter(name, subject):
            clear[name] = start(subject)

        enter("ours", daemon(CHOSEN.tgtd, CHOSEN.tgtadm, 62, folder, image(folder, "ours")))
        peer = pathlib.Path(CHOSEN.peer)
        if os.access(peer / "tgtd", os.X_OK):
            enter("tgt", daemon(str(peer / "tgtd"), str(peer / "tgtadm"), 61, folder, image(folder, "tgt")))
        else:
            print(f"without Debian's tgt: it is not in {peer}", file=sys.stderr)
        enter("limit", limit(folder, image(folder, "limit")))
        if any(case.tls for case in cases):
            keys = Keys(folder)
            ours = tls_portal(keys, CHOSEN.tgtadm, 62, folder)
            subjects[True]["ours"] = Through(clear["ours"], start(stunnel_client(folder, keys, ours)).port)
            subjects[True]["connect"] = Through(clear["ours"], start(tgt_connect(folder, keys, CHOSEN.connect, ours)).port)
            if "tgt" in clear:
                server = start(stunnel_server(folder, keys, clear["tgt"]))
                subjects[True]["tgt"] = Through(clear["tgt"], start(stunnel_client(folder, keys, server.port)).port, [server])
        load = os.getloadavg()[0]
        figures = measure(cases, subjects, CHOSEN.rounds)

    results = {case.name: summary(figures[case.name]) for case in cases}
    print(table(results, cases))
    if CHOSEN.result:
        report = {
            "date": datetime.date.today().isoformat(), "commit": first_line(["git", "rev-parse", "--short", "HEAD"]), "machine": machine(),
            "folder": kind_of(CHOSEN.dir), "rounds": CHOSEN.rounds, "load_before": round(load, 1),
            "units": {"rate": "requests a second, median", "cpu": "microseconds of the target's CPU for a request, median"},
            "cases": {case.name: {**dataclasses.asdict(case), **results[case.name]} for case in cases},
        }
        path = pathlib.Path(CHOSEN.result)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        path.with_suffix(".svg").write_text(chart.draw(report, [case.name for case in cases if not case.tls]))
        print(f"written: {path.with_suffix('.json')}, {path.with_suffix('.svg')}", file=sys.stderr)


if __name__ == "__main__":
    CHOSEN = options()
    LOG = tempfile.NamedTemporaryFile("w+", prefix="portcullis-bench-", suffix=".log")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that who ends us leaves no target behind
    main()
