"""The hosts that cluster tests stand on: separate, reachable by ssh from each other, and without a way out."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.cluster.hosts import GATEWAY, HOME, ROOT, assert_no_way_out, lan, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def test_hosts_are_separate_reach_each_other_by_ssh_and_nothing_else(tmp_path: Path) -> None:
    shared = tmp_path / "nfs"
    shared.mkdir()
    with lan(tmp_path, shared={"/shared": shared}) as network:
        laptop, head = network.boot({"laptop": "2", "head": "4"}, bashrc="export MARK=here\n")
        laptop.write("~/.ssh/id", network.key.read_text(), 0o600)
        laptop.run("touch /tmp/mine /shared/ours")
        ssh = "ssh -i ~/.ssh/id -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -q ubuntu@head"
        inside = "bash --login -c -i 'source ~/.bashrc; hostname; echo $MARK ~; ls /shared; ls /tmp/mine'"
        seen = laptop.run(f"{ssh} -tt {shlex.quote(inside)}", check=False).stdout
        assert seen.split()[:4] == ["head", "here", HOME, "ours"]
        assert "No such file" in seen, "/tmp is a host's own"
        assert laptop.run(f"ls {ROOT}/pyproject.toml").stdout.strip() == f"{ROOT}/pyproject.toml"
        assert laptop.run(f"touch {ROOT}/x", check=False).returncode != 0, "hosts cannot write to the checkout"
        assert "unreachable" in laptop.run("ip route get 1.1.1.1", check=False).stdout
        assert laptop.run(f"bash -c 'exec 3<>/dev/tcp/{GATEWAY}/9'", check=False).returncode != 0
        head.cut()
        assert laptop.run(f"{ssh} -o ConnectTimeout=1 true", check=False).returncode == 255
        head.mend()
        assert laptop.run(f"{ssh} true").returncode == 0
        head.run("touch /tmp/lost ~/kept")
        card = head.run("ip -br link show eth0").stdout.split()[2]
        head.off()
        assert not Path(f"/proc/{head.pid}").exists()
        (head,) = network.boot({"head": "4"})
        assert head.run("ip -br link show eth0").stdout.split()[2] == card, "else others write to the old one for 35 s"
        assert head.run("ls ~/kept; cat ~/.bashrc; test ! -e /tmp/lost").stdout.split() == [
            f"{HOME}/kept", "export", "MARK=here",
        ]  # fmt: skip


def test_this_machines_own_network_is_refused() -> None:
    with pytest.raises(AssertionError, match="not a namespace of its own"):
        assert_no_way_out(os.getpid())
