"""What throughput does not tell, measured with iscsi-load and our micro-benchmark: latencies, digests, logins, idle sessions, fairness, system calls.

Each measure gives, for each round, a number of each of its subjects. What counts is the ratio of two subjects within a round. What can only be
done by one of them has that one alone.
"""
import contextlib, dataclasses, json, os, shutil, statistics, subprocess, sys, time

from rig import INITIATOR, IQN, Daemon, last_words

WITH_DIGESTS, WITH_CHAP = f"{IQN}-digests", f"{IQN}-chap"
USER, SECRET = "bench", "secret-of-bench!"
IDLE = 10_000
PATIENCE = 120  # seconds for one run of a client

# One reactor, so that whoever floods floods that of the other.
ONE_REACTOR = "reactors: 1\n"
CROWDED = f"limits:\n  sessions-per-target: {2 * IDLE}\n"


@dataclasses.dataclass(frozen=True)
class Measure:
    name: str
    what: str
    unit: str
    # "more" or "less": which is better.
    better: str
    # Which ratios are formed: (label of one subject, label of another).
    ratios: tuple
    # How: takes the laboratory, returns {label: number}.
    run: object
    # What is to be reached, for the table.
    goal: str = ""


class Laboratory:
    """All that the measures need, started when the first of them asks for it."""

    def __init__(self, stack, folder, subjects, seconds, client, inside):
        """`client` and `inside` are the programs: iscsi-load and micro-benchmark."""
        self.stack, self.folder, self.subjects, self.seconds = stack, folder, subjects, seconds
        self.client, self.inside = client, inside
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        self.made = {}
        self.crowd = None

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def daemon(self, name, settings):
        """A daemon of ours with these settings, on the disk of the other one of ours."""

        def make():
            daemon = Daemon(self.subjects["ours"].programs, self.folder, self.subjects["ours"].backing, settings)
            self.stack.callback(daemon.stop)
            return daemon

        return self.once(name, make)

    def words(self, mode, subject, *words, target=IQN):
        return [self.client, mode, "--portal", f"127.0.0.1:{subject.port}", "--target", target, "--initiator", INITIATOR, *map(str, words)]

    def load(self, mode, subject, *words, target=IQN, before=()):
        """What one run of the client has found."""
        command = [*before, *self.words(mode, subject, "--seconds", self.seconds, *words, target=target)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        if run.returncode:
            sys.exit(f"{' '.join(map(str, command))}: {run.stderr.strip()[-400:]}\n{last_words()}")
        return json.loads(run.stdout)

    @property
    def targets(self):
        """Without the limit, which is no whole target."""
        return [name for name in self.subjects if name != "limit"]


# Latency

def p99(*words):
    return lambda lab: {name: lab.load("io", subject, *words)["p99"] for name, subject in lab.subjects.items()}


# Digests

def with_digests(lab, name):
    """The subject; its target that allows digests is made first."""
    subject = lab.subjects[name]
    lab.once(f"digests of {name}", lambda: subject.add_target(
        2, WITH_DIGESTS, subject.backing, [("HeaderDigest", "None,CRC32C"), ("DataDigest", "None,CRC32C")]))
    return subject


def digests(*words):
    def measure(lab):
        found = {}
        for name in lab.targets:
            subject = with_digests(lab, name)
            found[name] = lab.load("io", subject, *words, target=WITH_DIGESTS)["rate"]
            found[f"{name} with digests"] = lab.load("io", subject, "--header-digest", "--data-digest", *words, target=WITH_DIGESTS)["rate"]
        return found

    return measure


# Logins

def with_account(lab, name):
    subject = lab.subjects[name]

    def make():
        subject.add_target(3, WITH_CHAP, subject.backing)
        subject.admin(f"--op new --mode account --user {USER} --password {SECRET}")
        subject.admin(f"--op bind --mode account --tid 3 --user {USER}")

    lab.once(f"account of {name}", make)
    return subject


def logins(lab):
    found = {}
    for name in lab.targets:
        found[name] = lab.load("logins", lab.subjects[name])["rate"]
        subject = with_account(lab, name)
        for algorithm in ("md5", "sha256") if name == "ours" else ("md5",):
            words = ("--chap", algorithm, "--user", USER, "--secret", lab.secret)
            found[f"{name} {algorithm}"] = lab.load("logins", subject, *words, target=WITH_CHAP)["rate"]
    # Nobody is looked up and nothing is decided there: what the client and the kernel leave.
    if "limit" in lab.subjects:
        found["limit"] = lab.load("logins", lab.subjects["limit"])["rate"]
    return found


# Idle sessions

class Background:
    """A client that runs while something is measured. Its sessions are others than those of the clients in the foreground."""

    def __init__(self, lab, stack, mode, subject, *words):
        self.client = subprocess.Popen(
            lab.words(mode, subject, "--first-isid", 100_000, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        stack.callback(self.stop)

    def stop(self):
        self.client.kill()
        self.client.communicate()

    def check(self):
        """Ends the benchmark if it does not run any more."""
        if self.client.poll() is not None:
            sys.exit(f"what should run in the background has ended: {self.client.stderr.read()}\n{last_words()}")


def idle_memory(lab):
    """KiB that a session takes, counted once; nothing where a target does not bear so many. The crowd of ours stays."""
    def counted(subject, stack):
        before = subject.memory()
        crowd = Background(lab, stack, "idle", subject, "--sessions", IDLE)
        # It says so when all are in.
        return crowd, (subject.memory() - before) / IDLE / 1024 if crowd.client.stdout.readline() else None

    def ours():
        lab.crowd, number = counted(lab.daemon("crowded", CROWDED), lab.stack)
        lab.crowd.check()
        return number

    def peers():
        with contextlib.ExitStack() as stack:
            subject = Daemon(lab.subjects["tgt"].programs, lab.folder, lab.subjects["tgt"].backing)
            stack.callback(subject.stop)
            return counted(subject, stack)[1]

    found = {"ours": lab.once("memory of ours", ours)}
    if "tgt" in lab.subjects:
        found["tgt"] = lab.once("memory of tgt", peers)
    return {name: number for name, number in found.items() if number is not None}


def idle_rate(lab):
    """One daemon with a crowd, one without: what the one busy session has of each."""
    idle_memory(lab)
    words = ("--depth", 32)
    found = {
        "alone": lab.load("io", lab.daemon("empty", CROWDED), *words)["rate"],
        "in the crowd": lab.load("io", lab.daemon("crowded", CROWDED), *words)["rate"]}
    lab.crowd.check()
    return found


# Fairness

def fairness(lab):
    """Whoever floods uses a processor, too; so the session is measured beside a flood of another daemon as well."""
    one, other = lab.daemon("one reactor", ONE_REACTOR), lab.daemon("another reactor", ONE_REACTOR)

    def beside(flooded):
        with contextlib.ExitStack() as stack:
            flood = Background(lab, stack, "io", flooded, "--size", 256 << 10, "--depth", 128, "--seconds", PATIENCE)
            time.sleep(0.3)
            found = lab.load("io", one)["p99"]
            flood.check()
            return found

    return {"alone": lab.load("io", one)["p99"], "flood elsewhere": beside(other), "flood": beside(one)}


# System calls

def system_calls(lab):
    """Of all threads of the target, for one read, as the kernel counts them: that slows nothing."""
    if not shutil.which("perf"):
        return {}

    def count(subject):
        report = lab.folder / "perf"
        before = ["perf", "stat", "-x", ",", "-o", report, "-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, subject.family())), "--"]
        found = lab.load("io", subject, "--depth", 32, before=before)
        counts = [line.split(",")[0] for line in report.read_text().splitlines() if "raw_syscalls" in line]
        return int(counts[0]) / found["requests"] if counts and counts[0].isdigit() else None

    found = {name: count(subject) for name, subject in lab.subjects.items()}
    return {name: number for name, number in found.items() if number is not None}


# Inside of a process

def micro(lab):
    run = subprocess.run([lab.inside], capture_output=True, text=True, timeout=PATIENCE)
    if run.returncode:
        sys.exit(f"{lab.inside}: {run.stderr.strip()[-400:]}")
    return json.loads(run.stdout)


READS = ("--depth", 32)
LARGE = ("--size", 256 << 10, "--depth", 8)
MEASURES = [
    Measure("p99-r4k-qd1", "p99 of reads of 4 KiB, one at a time", "µs", "less", (("ours", "limit"), ("ours", "tgt"), ("tgt", "limit")), p99(), "ours/limit ≤ 1.5"),
    Measure("p99-w4k-qd1", "p99 of writes of 4 KiB, one at a time", "µs", "less", (("ours", "limit"), ("ours", "tgt"), ("tgt", "limit")), p99("--write")),
    Measure("digests-r4k-qd32", "reads of 4 KiB, 32 at once, with digests", "a second", "more",
            (("ours with digests", "ours"), ("tgt with digests", "tgt")), digests(*READS), "≥ 0.85"),
    Measure("digests-r256k-qd8", "reads of 256 KiB, 8 at once, with digests", "a second", "more",
            (("ours with digests", "ours"), ("tgt with digests", "tgt")), digests(*LARGE), "≥ 0.85"),
    Measure("logins", "logins and logouts, 8 at once", "a second", "more",
            (("ours", "tgt"), ("limit", "tgt"), ("ours md5", "tgt md5"), ("ours sha256", "ours")), logins, "ours/tgt ≥ 5, SHA-256 ≥ 0.4 of none"),
    Measure("idle-memory", f"memory of one of {IDLE:,} idle sessions", "KiB", "less", (("ours", "tgt"),), idle_memory, "≤ 40 KiB"),
    Measure("idle-rate", f"reads of 4 KiB, 32 at once, beside {IDLE:,} idle sessions", "a second", "more", (("in the crowd", "alone"),), idle_rate),
    Measure("fairness", "p99 of reads of 4 KiB, one at a time, beside a flood of large ones", "µs", "less",
            (("flood", "alone"), ("flood", "flood elsewhere")), fairness, "flood/alone ≤ 2"),
    Measure("system-calls", "system calls for a read of 4 KiB, 32 at once", "", "less", (("ours", "tgt"), ("ours", "limit")), system_calls, "≤ 1.25"),
    Measure("micro", "inside of the process", "ns", "less",
            (("parse", "SHA-256"), ("command", "SHA-256"), ("login", "SHA-256")), micro),
]


def measure(chosen, lab, rounds):
    """The numbers of every round: measure → label → [number]. Round 0 warms up."""
    found = {each.name: {} for each in chosen}
    for number in range(rounds + 1):
        for each in chosen:
            for label, value in each.run(lab).items():
                if number:
                    found[each.name].setdefault(label, []).append(value)
        print(f"round {number} of {rounds} of what is beside throughput, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return found


def summary(chosen, rounds, ratios_of):
    """Medians, and ratios within the rounds."""
    def brief(number):
        return round(number, 1 if number >= 100 else 3)

    return {
        "what": chosen.what, "unit": chosen.unit, "better": chosen.better, "goal": chosen.goal,
        "value": {label: brief(statistics.median(each)) for label, each in rounds.items()},
        "rounds": {label: [brief(number) for number in each] for label, each in rounds.items()},
        "ratio": ratios_of(rounds, chosen.ratios),
    }


def rows(results):
    """For a table: each ratio, and what it is made of."""
    def shown(number):
        return f"{number:,.{0 if number >= 1000 else 1 if number >= 10 else 2 if number >= 0.1 else 3}f}"

    for name, result in results.items():
        values = ", ".join(f"{label} {shown(number)}" for label, number in result["value"].items())
        first = [name, f"{values} {result['unit']}".strip(), result["goal"]]
        ratios = [[pair, shown(found["median"]), f"{shown(found['least'])}…{shown(found['most'])}"] for pair, found in result["ratio"].items()]
        for index, ratio in enumerate(ratios or [["", "", ""]]):
            yield [*(first if index == 0 else ["", "", ""]), *ratio]
