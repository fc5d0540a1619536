"""What storage holds that nothing needs: superseded checkpoints, leftovers of writes, decoded frames."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from retable.track.claims import holder
from retable.track.drivers import forgotten
from retable.track.storage import Storage

CACHE = "decoded frames (made again when needed)"
CHECKPOINTS = "checkpoints superseded by a later attempt"
LEFTOVERS = "leftovers of interrupted writes"
DRIVERS = "heartbeats of drivers that were killed (none for a day)"


def garbage(storage: Storage, cache: Path) -> dict[str, dict[str, int]]:
    """Bytes that can be freed, by kind and name.

    Runs that somebody trains now are left alone, and while there are any, so are the decoded frames that they read.
    Optical flow always is: it may have taken days.
    """
    found: dict[str, dict[str, int]] = {CHECKPOINTS: {}, LEFTOVERS: {}, DRIVERS: forgotten(storage), CACHE: {}}
    held = False
    for run_id in storage.run_ids():
        if holder(storage, run_id) is not None:
            held = True
            continue
        sizes = storage.sizes(f"runs/{run_id}")
        superseded = [n for kind in ("last", "best") for n in storage.checkpoints(run_id, kind)[1:]]
        found[CHECKPOINTS] |= {n: sizes[n] for n in superseded if n in sizes}
        found[LEFTOVERS] |= {n: size for n, size in sizes.items() if PurePosixPath(n).name.startswith(".")}
    for folder in sorted(cache.glob("*")) if cache.is_dir() and not held else []:
        if folder.is_dir() and not folder.name.startswith("flow-"):
            found[CACHE][str(folder)] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return found


def delete(storage: Storage, found: dict[str, dict[str, int]]) -> int:
    """Free what :func:`garbage` found, but for runs that have been claimed since; returns the bytes freed."""
    freed = 0
    for kind, items in found.items():
        for name, size in items.items():
            if kind == CACHE:
                shutil.rmtree(name, ignore_errors=True)
            elif kind != DRIVERS and holder(storage, PurePosixPath(name).parts[1]) is not None:
                continue
            else:
                storage.delete(name)
            freed += size
    return freed
