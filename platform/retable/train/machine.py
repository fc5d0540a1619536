"""What a speed depends on beyond the network: the machine and the libraries, in words. Part of a measurement's id."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import psutil
import torch

from retable import __version__


def describe(*, gpu: bool) -> dict[str, str] | None:
    """This machine, without its name: equal machines are described alike. None where a GPU is asked for and none is.

    ``device`` is what computes; ``machine`` the processor, its cores and memory; the rest are versions.
    """
    if gpu and not torch.cuda.is_available():
        return None
    found = {
        "device": torch.cuda.get_device_name() if gpu else _processor(),
        "machine": f"{_processor()}, {psutil.cpu_count()} logical cores, {_memory()} GiB, {platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "retable": __version__,
    }
    if gpu:
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
    return found


def _memory() -> int:
    return round(psutil.virtual_memory().total / 2**30)


def _processor() -> str:
    """The processor's name as its maker gives it, or its architecture."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return " ".join(named.split()) or platform.processor() or platform.machine()
