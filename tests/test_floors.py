"""Imports only go down, heavy libraries stay in their room, and models are reached by name only."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLATFORM = ROOT / "platform" / "retable"
MODEL_FILES = sorted((ROOT / "models").glob("*.py"))
PLATFORM_FILES = sorted(PLATFORM.rglob("*.py"))

ROOMS = {
    "ray": [
        f"execute/{name}.py" for name in ("clusters", "jobs", "nodes", "session", "sources", "trial", "tune", "waiting")
    ],
    "mlflow": ["track/record.py"],
}
"""The files that may import a library; one that no longer does is taken off the list."""
MODELS_MAY_IMPORT = {"torch", "torchvision", "pydantic", *sys.stdlib_module_names}


def imports(source: str) -> Iterator[str]:
    """Dotted names of every module that a source text imports, wherever in it, by statement or by constant name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(a.value) for a in node.args if isinstance(a, ast.Constant))


def imported(file: Path, *packages: str) -> list[str]:
    """Which of ``packages``, or of what is in them, a file imports."""
    found = imports(file.read_text(encoding="utf-8"))
    return [name for name in found if any(name == p or name.startswith(f"{p}.") for p in packages)]


def test_every_way_to_import_is_seen() -> None:
    source = (
        "import a.b, c\n"
        "from d import e\n"
        "def f():\n    import g as h\n    import importlib\n    importlib.import_module('i.j')\n"
        "if TYPE_CHECKING:\n    from k.l import m\n"
    )
    assert sorted(imports(source)) == ["a.b", "c", "d.e", "g", "i.j", "importlib", "k.l.m"]


def test_the_contracts_of_pyproject_hold() -> None:
    """In a process of its own: retable, once imported, also looks in the checkout, which may be named retable too."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("library", ROOMS)
def test_a_library_is_imported_in_its_room_only(library: str) -> None:
    found = [str(f.relative_to(PLATFORM)) for f in PLATFORM_FILES if imported(f, library)]
    assert found == ROOMS[library]


def test_optuna_is_imported_where_ray_is_only() -> None:
    found = [f.relative_to(PLATFORM).parts[0] for f in PLATFORM_FILES if imported(f, "optuna")]
    assert set(found) <= {"execute"}


@pytest.mark.parametrize("file", PLATFORM_FILES, ids=lambda f: str(f.relative_to(PLATFORM)))
def test_no_module_imports_a_model_or_the_tests_by_name(file: Path) -> None:
    found = imported(file, "models", "studies", "tests", "retable.models", "retable.tests", "retable.platform")
    allowed = ["retable.models"] if file.name == "registry.py" else []
    assert found == allowed


def test_there_are_models() -> None:
    assert {"msfnet", "r2plus1d"} <= {f.stem for f in MODEL_FILES}


@pytest.mark.parametrize("file", MODEL_FILES, ids=lambda f: f.stem)
def test_a_model_file_imports_torch_and_the_blocks_only(file: Path) -> None:
    found = imports(file.read_text(encoding="utf-8"))
    foreign = [n for n in found if n.split(".")[0] not in MODELS_MAY_IMPORT and not n.startswith("retable.nn")]
    assert foreign == []


@pytest.mark.parametrize("file", MODEL_FILES, ids=lambda f: f.stem)
def test_models_do_not_import_each_other(file: Path) -> None:
    assert imported(file, "retable.models", "models", *(f.stem for f in MODEL_FILES)) == []
