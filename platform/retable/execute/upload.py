"""Which files of a folder go to a cluster with a study: small ones that somebody wrote, not data and not results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

LIMIT_BYTES = 100 * 2**20
"""Ray refuses a larger working directory (HTTP 413), after it has been packed and sent."""
JUNK = (".git", ".retable", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis")
JUNK_AT_TOP = ("data", "mlruns", "mlflow.db", "mlartifacts")
SHOWN = 5


class UploadRefused(RuntimeError):
    """The folder is too large to go with a study; the message names its large files."""


def files(folder: Path, *, leave_out: tuple[Path, ...] = ()) -> list[Path]:
    """Relative paths of the files to send, sorted: what every ``.gitignore`` leaves, without :data:`JUNK`, links to
    folders, and whatever lies in ``leave_out``."""
    return sorted(_walk(folder, folder, [], {path.resolve() for path in leave_out}))


def stage(folder: Path, target: Path, *, leave_out: tuple[Path, ...] = ()) -> int:
    """Copy the files to send into the empty folder ``target``; their bytes.

    Raises:
        UploadRefused: they are more than :data:`LIMIT_BYTES`.
    """
    chosen = files(folder, leave_out=leave_out)
    sizes = {path: (folder / path).stat().st_size for path in chosen}
    total = sum(sizes.values())
    if total > LIMIT_BYTES:
        large = sorted(sizes, key=lambda path: -sizes[path])[:SHOWN]
        named = "".join(f"\n  {sizes[path] / 2**20:8.1f} MiB  {path}" for path in large)
        raise UploadRefused(
            f"{folder} has {total / 2**20:.0f} MiB of files, but at most {LIMIT_BYTES / 2**20:.0f} MiB go to a cluster"
            f" with a study. List in .gitignore what it does not need:{named}"
        )
    for path in chosen:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / path, target / path)
    return total


def _walk(folder: Path, top: Path, above: list[tuple[Path, GitIgnoreSpec]], left_out: set[Path]) -> Iterator[Path]:
    ignores = [*above, *_ignore_file(folder)]
    junk = JUNK + (JUNK_AT_TOP if folder == top else ())
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            path = Path(entry.path)
            if entry.name in junk or path.resolve() in left_out or _ignored(path, entry.is_dir(), ignores):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path, top, ignores, left_out)
            elif entry.is_file():
                yield path.relative_to(top)


def _ignore_file(folder: Path) -> list[tuple[Path, GitIgnoreSpec]]:
    try:
        lines = (folder / ".gitignore").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [(folder, GitIgnoreSpec.from_lines(lines))]


def _ignored(path: Path, is_folder: bool, ignores: list[tuple[Path, GitIgnoreSpec]]) -> bool:
    """As git decides: the innermost file that says something about a path counts."""
    for base, spec in reversed(ignores):
        said = spec.check_file(f"{path.relative_to(base).as_posix()}{'/' if is_folder else ''}").include
        if said is not None:
            return said
    return False
