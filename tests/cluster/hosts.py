"""Several machines on one: each host has network, mount, process, hostname and IPC namespaces of its own and an sshd.

A bridge in a namespace of its own joins them. It has no way out, which is checked before a host is handed out: cluster
launchers try to reach whatever addresses a cloud tells them. Needs root, sshd, rsync and iproute2: see :func:`missing`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "10.77.0"
GATEWAY = f"{NETWORK}.1"
HOME = "/srv/home"
KEPT = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
"""What every host sees at the same place, read-only: the checkout, the environment, the Python below it."""
BOOT_SECONDS = 20.0

INIT = """
set -e
mount --make-rprivate /
new=$BOOT/root; mkdir -p $new
mount --rbind / $new
for dir in /tmp /srv /run /etc/ssh /dev/shm; do
  mount -t tmpfs -o mode=755,size=2g tmpfs $new$dir
done
chmod 1777 $new/tmp $new/dev/shm
for path in $KEPT; do
  mkdir -p $new$path; mount --bind $path $new$path; mount -o remount,bind,ro $new$path
done
for pair in $SHARED; do
  mkdir -p $new${pair#*=}; mount --bind ${pair%%=*} $new${pair#*=}
done
mount -t proc proc $new/proc
mkdir $new/srv/home; mount --bind $BOOT/home $new/srv/home; chmod 700 $new/srv/home $new/srv/home/.ssh
cp $BOOT/ssh/* $new/etc/ssh/; chmod 600 $new/etc/ssh/*; mkdir -p $new/run/sshd
for file in passwd hosts; do mount --bind $BOOT/$file $new/etc/$file; done
hostname $NAME
ip link set lo up
cd $new
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
  chroot $new /usr/sbin/sshd -D -E /run/sshd.log -f /etc/ssh/sshd_config
"""

SSHD = """
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
PrintMotd no
MaxStartups 100
MaxSessions 100
"""


def missing() -> str | None:
    """Why no hosts can be made here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts of their own need root on Linux"
    tools = ("/usr/sbin/sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "nsenter", "setpriv")
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (on Debian: openssh-server openssh-client rsync iproute2)"
    bridge = ["unshare", "-nmpui", "--fork", "ip", "link", "add", "name", "br0", "type", "bridge"]
    tried = subprocess.run(bridge, capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"this machine lets root make no bridge: {tried.stderr.strip()}"


@dataclass(frozen=True)
class Host:
    """A running host. ``pid`` is its sshd, which is process 1 inside."""

    name: str
    ip: str
    pid: int
    process: subprocess.Popen[bytes]

    def run(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = HOME,
        timeout: float = 120,
        check: bool = True,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host as its user; the output of both streams is in ``stdout``."""
        done = subprocess.run(
            self._inside(command, env or {}, cwd), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False, input=stdin,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"on {self.name}: {command}\nended with {done.returncode}:\n{done.stdout}")
        return done

    def spawn(self, command: str, *, env: Mapping[str, str] | None = None, cwd: str = HOME) -> subprocess.Popen[str]:
        """Start a shell command on the host and leave it running; the host's end ends it."""
        return subprocess.Popen(
            self._inside(command, env or {}, cwd), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the host; ``path`` may begin with ~."""
        self.run(f"mkdir -p $(dirname {path}) && install -m {mode:o} /dev/stdin {path}", stdin=text)

    def cut(self) -> None:
        """Take the host off the network, as when its cable is pulled."""
        self.run("ip link set eth0 down")

    def mend(self) -> None:
        """Put it back on the network."""
        self.run("ip link set eth0 up")

    def off(self) -> None:
        """Power it off without warning: every process in it dies, /tmp is lost, its home stays."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(timeout=BOOT_SECONDS)

    def _inside(self, command: str, env: Mapping[str, str], cwd: str) -> list[str]:
        path = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        given = {"HOME": HOME, "USER": "root", "LANG": "C.UTF-8", "PATH": path, **env}
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--uts", "--ipc", "--root"]
        words = [f"{name}={value}" for name, value in given.items()]
        return [*enter, "env", "-i", *words, "bash", "-c", f"cd {cwd}\n{command}"]


@dataclass
class Lan:
    """Hosts on one bridge. Everything on it ends with the ``with`` block that :func:`lan` opens."""

    folder: Path
    user: str
    bridge: int
    shared: Mapping[str, Path]
    stack: ExitStack
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def key(self) -> Path:
        """The private key that opens every host."""
        return self.folder / "key"

    def at_gateway(self, *command: str) -> list[str]:
        """``command`` as run on the bridge itself, at :data:`GATEWAY`, with this machine's files."""
        return ["nsenter", "--target", str(self.bridge), "--net", *command]

    def boot(self, names: Mapping[str, str], bashrc: str = "") -> list[Host]:
        """Start hosts by name and last part of the address (or whole address), and wait until each sshd answers.

        ``bashrc`` is what the hosts' ~/.bashrc holds at first. A host that was on before finds its home again.
        """
        addresses = {n: a if "." in a else f"{NETWORK}.{a}" for n, a in names.items()}
        started = [self._start(name, ip, addresses, bashrc) for name, ip in addresses.items()]
        for host in started:
            self._await_sshd(host)
            self.hosts[host.name] = host
        return started

    def _start(self, name: str, ip: str, everyone: Mapping[str, str], bashrc: str) -> Host:
        boot = self.folder / name
        self._files(boot, {**{h.name: h.ip for h in self.hosts.values()}, **everyone}, bashrc)
        env = {
            "PATH": os.environ["PATH"],
            "BOOT": str(boot),
            "NAME": name,
            "KEPT": " ".join(str(path) for path in KEPT),
            "SHARED": " ".join(f"{source}={target}" for target, source in self.shared.items()),
        }
        command = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        process, pid = _namespaced([*command, "bash", "-c", INIT], env, boot / "boot.log")
        self.stack.callback(_end, process)
        assert_no_way_out(pid)
        port = f"v{len(self.hosts)}{name}"[:14]
        ends = ["link", "add", port, "netns", str(self.bridge), "type", "veth", "peer", "name", "eth0"]
        _ip(*ends, "address", _card(ip), "netns", str(pid))
        _ip("link", "set", port, "master", "br0", "up", inside=self.bridge)
        _ip("addr", "add", f"{ip}/24", "dev", "eth0", inside=pid)
        _ip("link", "set", "eth0", "up", inside=pid)
        assert_no_way_out(pid)
        return Host(name, ip, pid, process)

    def _files(self, boot: Path, names: Mapping[str, str], bashrc: str) -> None:
        (boot / "ssh").mkdir(parents=True, exist_ok=True)
        if not (boot / "home").exists():
            (boot / "home" / ".ssh").mkdir(parents=True)
            (boot / "home" / ".bashrc").write_text(bashrc)
        (boot / "ssh" / "sshd_config").write_text(SSHD)
        (boot / "ssh" / "host_key").write_bytes((self.folder / "host_key").read_bytes())
        (boot / "ssh" / "authorized_keys").write_bytes((self.folder / "key.pub").read_bytes())
        people = {"root", self.user}
        (boot / "passwd").write_text(
            "".join(f"{name}:x:0:0::{HOME}:/bin/bash\n" for name in sorted(people)) + _SSHD_USER
        )
        (boot / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {n}\n" for n, ip in names.items()))

    def _await_sshd(self, host: Host) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        ask = f"exec 3<>/dev/tcp/{host.ip}/22 && head -c 4 <&3"
        while time.monotonic() < deadline:
            answer = subprocess.run(
                self.at_gateway("timeout", "3", "bash", "-c", ask), capture_output=True, text=True, check=False
            )
            if answer.stdout == "SSH-":
                return
            if host.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{host.name} does not answer: {(self.folder / host.name / 'boot.log').read_text()}")


_SSHD_USER = "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"


def _card(ip: str) -> str:
    """The hardware address of the host at ``ip``: the same at every boot, so that what others remember stays true."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in ip.split("."))


@contextmanager
def lan(folder: Path, *, user: str = "ubuntu", shared: Mapping[str, Path] | None = None) -> Iterator[Lan]:
    """A network without hosts. ``shared`` folders (path on every host: folder here) are as NFS would be, writable."""
    with ExitStack() as stack:
        process, pid = _namespaced(["unshare", "--net", "--fork", "--kill-child", "sleep", "infinity"], None, None)
        stack.callback(_end, process)
        assert_no_way_out(pid)
        _ip("link", "set", "lo", "up", inside=pid)
        _ip("link", "add", "name", "br0", "type", "bridge", inside=pid)
        _ip("addr", "add", f"{GATEWAY}/24", "dev", "br0", inside=pid)
        _ip("link", "set", "br0", "up", inside=pid)
        for key in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        yield Lan(folder, user, pid, shared or {}, stack)


def assert_no_way_out(pid: int) -> None:
    """Refuse a network namespace that is this machine's own or from which strangers could be reached."""
    assert _network(pid) != _network(os.getpid()), "not a namespace of its own"
    for stranger in ("1.1.1.1", "2606:4700:4700::1111"):
        asked = subprocess.run(
            ["nsenter", "--target", str(pid), "--net", "ip", "route", "get", stranger], capture_output=True, check=False
        )
        assert asked.returncode != 0, f"namespace of process {pid} has a route to {stranger}"


def _namespaced(
    command: Sequence[str], env: Mapping[str, str] | None, log: Path | None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start ``unshare ... --fork``, which dies with this process, and the process number of what it forked."""
    with ExitStack() as files:
        out = files.enter_context(log.open("wb")) if log else subprocess.DEVNULL
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        forked = children.read_text().split()
        if forked and _network(int(forked[0])) != _network(os.getpid()):
            return process, int(forked[0])
        time.sleep(0.01)
    raise AssertionError(f"{command[0]} forked nothing: {log.read_text() if log else ''}")


def _network(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=BOOT_SECONDS)


def _ip(*words: str, inside: int | None = None) -> None:
    enter = ["nsenter", "--target", str(inside), "--net"] if inside else []
    subprocess.run([*enter, "ip", *words], check=True)
