"""Ray for the time of a command: what it leaves behind on the user's machine and in the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = """
import os
from retable.execute.session import ray_session
import ray

before = os.environ.get("RAY_AUTH_TOKEN")
for _ in range(2):
    with ray_session(cpus=1):
        assert os.environ["RAY_AUTH_MODE"] == "token", "a private Ray lets in nobody else"
        print(len(os.environ["RAY_AUTH_TOKEN"]), ray.get(ray.remote(lambda: 4).remote()))
    assert os.environ.get("RAY_AUTH_TOKEN") == before
"""


def test_a_local_session_has_a_token_of_its_own_and_writes_none_into_the_home(tmp_path: Path) -> None:
    """Ray itself writes ``~/.ray/auth_token``, readable to all, and every later cluster would get it."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", SESSIONS], capture_output=True, text=True, check=False,
        env={**own, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "platform")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["64", "4", "64", "4"]
    assert not (tmp_path / ".ray").exists()
