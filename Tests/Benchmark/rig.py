"""The programs that are measured, started and stopped: ours, tgt's, the limit, and what stands before them."""
import contextlib, os, pathlib, socket, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
IQN = "iqn.2026-11.org.example:bench"
# Whom our portal lets in: what the client calls itself is what the certificate says.
INITIATOR = "iqn.2026-11.org.example:client"
IMAGE_MIB = 1024
# What all of them say.
LOG = tempfile.NamedTemporaryFile("w+", prefix="portcullis-bench-", suffix=".log")


def last_words():
    LOG.flush()
    return "\n".join(pathlib.Path(LOG.name).read_text(errors="replace").splitlines()[-10:])


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

    def family(self):
        """Its process, and those that it has started."""
        parents = {}
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])

        def is_ours(pid):
            return pid == self.process.pid or pid in parents and is_ours(parents[pid])

        return [pid for pid in parents if is_ours(pid)]

    def cpu_seconds(self):
        """Of its processes."""
        used = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                used += int(fields[11]) + int(fields[12])
        return used / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Bytes that its processes hold and that are not a file's."""
        held = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
                held += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
        return held << 10


class Daemon(Subject):
    """A tgtd, ours or tgt's, that serves a disk: both are told the same.

    `settings` are ours alone: the text of a settings file.
    """

    def __init__(self, programs, folder, backing, settings=None):
        self.programs, self.backing = programs, backing
        tgtd, self.tgtadm = programs
        port = free_port()
        # Sockets and accounts of several daemons do not meet: each has a control port of its own.
        self.control = str(port % 1000)
        self.environment = dict(os.environ, TGT_IPC_SOCKET=str(folder / f"socket-{port}"))
        more = []
        if settings:
            file = folder / f"tgtd-{port}.yaml"
            file.write_text(settings)
            file.chmod(0o600)
            more = ["--config", str(file)]
        super().__init__([tgtd, "-f", "-C", self.control, "--iscsi", f"portal=127.0.0.1:{port}", *more], port, self.environment)
        try:
            self.add_target(1, IQN, backing)
        except BaseException:
            self.stop()
            raise

    def admin(self, words):
        command = [self.tgtadm, "-C", self.control, "--lld", "iscsi", *words.split()]
        if subprocess.run(command, stdout=LOG, stderr=LOG, env=self.environment).returncode:
            sys.exit(f"{' '.join(command)} has failed:\n{last_words()}")

    def add_target(self, tid, name, backing, parameters=()):
        """A target with a disk, for everybody."""
        self.admin(f"--op new --mode target --tid {tid} -T {name}")
        for parameter, value in parameters:
            self.admin(f"--op update --mode target --tid {tid} --name {parameter} --value {value}")
        self.admin(f"--op new --mode logicalunit --tid {tid} --lun 1 -b {backing} --bstype rdwr")
        self.admin(f"--op bind --mode target --tid {tid} -I ALL")

    def add_tls_portal(self, keys):
        """Its port; of a daemon of ours."""
        port = free_port()
        certificate, key = keys.pair("portals/127.0.0.1")
        words = f"portal=127.0.0.1:{port},tls=required,certificate={certificate},key={key},client-ca={keys.ca},client-auth=required"
        self.admin(f"--op new --mode portal --param {words}")
        return port


class Limit(Subject):
    """limit.c, which does one pread, pwrite or fdatasync for each command and nothing else."""

    def __init__(self, folder, backing):
        binary = folder / "limit"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", binary, HERE / "limit.c"], check=True)
        port = free_port()
        super().__init__([binary, str(port), backing], port)


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
