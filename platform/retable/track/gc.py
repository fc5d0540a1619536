"""What storage holds that nothing needs: superseded checkpoints, leftovers of writes, decoded frames."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from retable.track.claims import holder
from retable.track.storage import Storage

CACHE = "decoded frames (made again when needed)"
CHECKPOINTS = "checkpoints superseded by a later attempt"
LEFTOVERS = "leftovers of interrupted writes"


def garbage(storage: Storage, cache: Path) -> dict[str, dict[str, int]]:
    """Bytes that can be freed, by kind and name. Runs that somebody trains now are left alone."""
    found: dict[str, dict[str, int]] = {CHECKPOINTS: {}, LEFTOVERS: {}, CACHE: {}}
    for run_id in storage.run_ids():
        if holder(storage, run_id) is not None:
            continue
        sizes = storage.sizes(f"runs/{run_id}")
        superseded = [n for kind in ("last", "best") for n in storage.checkpoints(run_id, kind)[1:]]
        found[CHECKPOINTS] |= {n: sizes[n] for n in superseded if n in sizes}
        found[LEFTOVERS] |= {n: size for n, size in sizes.items() if PurePosixPath(n).name.startswith(".")}
    for folder in sorted(cache.glob("*")) if cache.is_dir() else []:
        if folder.is_dir():
            found[CACHE][str(folder)] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return found


def delete(storage: Storage, found: dict[str, dict[str, int]]) -> int:
    """Free what :func:`garbage` found; returns the bytes freed."""
    for kind, items in found.items():
        for name in items:
            if kind == CACHE:
                shutil.rmtree(name, ignore_errors=True)
            else:
                storage.delete(name)
    return sum(size for items in found.values() for size in items.values())
