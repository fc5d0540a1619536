"""``retable doctor``: what is here, what is wrong with it, and what to do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retable.data.variants import VARIANTS
from retable.track.connection import TrackingUnavailable, probe
from retable.track.storage import StorageError
from retable.workspace import Workspace

PACKAGES = ("ray", "torch", "torchvision", "mlflow", "optuna", "av", "pandas", "matplotlib")
DECODERS = ("mpeg4", "h264", "vp9", "hevc")
"""Of UCF101, HMDB51 and the generated videos; of Kinetics; of Something-Something; of what phones record."""
LEAST_FREE_GB = 2.0


def examine(workspace: Workspace) -> list[dict[str, Any]]:
    """Every check as ``{name, ok, found, hint}``. Nothing is changed but a probe file, which is removed."""
    checks: list[tuple[str, Callable[[], str], str]] = [
        ("python", lambda: sys.version.split()[0], "retable needs Python 3.11 or later"),
        *((name, lambda n=name: version(n), f"pip install {name}") for name in PACKAGES),
        ("device", _device, "training falls back to the CPU"),
        ("decoders", _decoders, "install PyAV from its wheel, whose FFmpeg has them: pip install --force-reinstall av"),
        ("platform", _platform, "remove platform/__init__.py: it shadows the standard library's module platform"),
        ("storage", lambda: _storage(workspace), "choose another --storage or $RETABLE_STORAGE"),
        ("disk", lambda: _disk(workspace), f"less than {LEAST_FREE_GB:g} GB: retable gc shows what can go"),
        ("mlflow store", lambda: _tracking(workspace), "start the server, or leave --tracking-uri out for sqlite"),
        ("datasets", lambda: _datasets(workspace), "retable data generate motions-ucf101, or set $RETABLE_DATA"),
    ]
    return [_check(*check) for check in checks]


def _check(name: str, look: Callable[[], str], hint: str) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "found": look(), "hint": hint}
    except (PackageNotFoundError, StorageError, TrackingUnavailable, OSError, LookupError, RuntimeError) as error:
        return {"name": name, "ok": False, "found": str(error) or "missing", "hint": hint}


def _decoders() -> str:
    import av

    missing = [name for name in DECODERS if name not in av.codecs_available]
    if missing:
        raise LookupError(f"FFmpeg has no decoder for {', '.join(missing)}")
    return ", ".join(DECODERS)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"{len(names)} GPUs: {', '.join(names)}"
    return f"CPU only, {torch.get_num_threads()} threads"


def _platform() -> str:
    import platform

    if not hasattr(platform, "system"):
        raise RuntimeError(f"import platform finds {platform.__file__}")
    return platform.platform()


def _storage(workspace: Workspace) -> str:
    storage = workspace.storage
    storage.put("doctor-probe", b"ok")
    storage.delete("doctor-probe")
    return f"{storage.url}, {len(storage.run_ids())} runs"


def _disk(workspace: Workspace) -> str:
    folder = Path(workspace.storage.root) if workspace.storage.local else Path.cwd()
    free = shutil.disk_usage(folder if folder.exists() else Path.cwd()).free / 1e9
    if free < LEAST_FREE_GB:
        raise OSError(f"{free:.1f} GB free in {folder}")
    return f"{free:.1f} GB free"


def _tracking(workspace: Workspace) -> str:
    probe(workspace.tracking_uri)
    return workspace.tracking_uri


def _datasets(workspace: Workspace) -> str:
    here = [name for name in (*VARIANTS, "ucf101", "hmdb51", "kinetics400") if workspace.has_dataset(name)]
    if not here:
        raise LookupError("none is here yet")
    return ", ".join(here)
