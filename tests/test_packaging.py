"""What is shipped: ``platform/`` never shadows the standard library, and the wheel holds what a checkout does."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STANDARD = str(Path(os.__file__).with_name("platform.py"))


def tree(folder: str, *suffixes: str) -> set[str]:
    """Files below a folder of the checkout, relative to it."""
    found = (ROOT / folder).rglob("*")
    return {f.relative_to(ROOT / folder).as_posix() for f in found if f.suffix in suffixes and f.is_file()}


def python(*arguments: str, cwd: Path, path: Path | str = "") -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_platform_holds_retable_and_nothing_else() -> None:
    assert [p.name for p in (ROOT / "platform").iterdir()] == ["retable"]
    assert not (ROOT / "__init__.py").exists()


@pytest.mark.parametrize("path", ["", ".", "platform"])
def test_the_standard_librarys_platform_is_the_one_imported(path: str) -> None:
    code = "import platform, retable; print(platform.__file__, platform.system() != '')"
    assert python("-c", code, cwd=ROOT, path=path) == f"{STANDARD} True"


def test_the_standard_librarys_platform_is_the_one_run() -> None:
    # As a namespace package it would have no __main__ and the call would fail.
    assert python("-m", "platform", "--terse", cwd=ROOT, path="platform") != ""


def test_an_init_file_in_platform_would_shadow_it(tmp_path: Path) -> None:
    # Why the tests above can fail: this is what they guard against.
    (tmp_path / "platform").mkdir()
    code = "import sys; sys.modules.pop('platform', None); import platform; print(platform.__file__)"
    assert python("-c", code, cwd=tmp_path) == STANDARD
    (tmp_path / "platform" / "__init__.py").touch()
    assert python("-c", code, cwd=tmp_path) == str(tmp_path / "platform" / "__init__.py")


@dataclass(frozen=True)
class Built:
    """What ``python -m build`` makes: the sdist, and the wheel made from that sdist; and what stood in the checkout."""

    wheel: Path
    sdist: Path
    code: set[str]

    @property
    def in_wheel(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    @property
    def in_sdist(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions, built offline."""
    out = tmp_path_factory.mktemp("dist")
    code = tree("platform", ".py", ".typed")
    python("-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out)
    return Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz")), code)


def test_the_wheel_holds_all_code_models_and_studies(built: Built) -> None:
    assert {"retable/cli.py", "retable/data/layouts/ucf101.py", "retable/study/load.py"} <= built.code
    assert built.code <= built.in_wheel
    assert {f"retable/models/{f}" for f in tree("models", ".py")} <= built.in_wheel
    assert {f"retable/studies/{f}" for f in tree("studies", ".yaml")} <= built.in_wheel
    assert {"retable/studies/msfnet.yaml", "retable/studies/quickstart.yaml"} <= built.in_wheel


def test_the_wheel_holds_nothing_else(built: Built) -> None:
    kinds = {name.split("/")[0] for name in built.in_wheel}
    assert {k for k in kinds if not k.endswith(".dist-info")} == {"retable"}
    assert [n for n in built.in_wheel if "test" in n.split("/")[1] and n != "retable/testing.py"] == []
    assert not {n for n in built.in_wheel if n.endswith((".pyc", ".db", ".avi", ".pt"))}
    assert "retable/py.typed" in built.in_wheel
    assert any(n.endswith("dist-info/licenses/LICENSE") for n in built.in_wheel)


def test_the_wheel_has_the_command(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (entry,) = [n for n in built.in_wheel if n.endswith("entry_points.txt")]
        assert "retable = retable.cli:main" in archive.read(entry).decode()


def test_the_sdist_holds_what_tests_and_docs_need(built: Built) -> None:
    assert {f"platform/{f}" for f in built.code} <= built.in_sdist
    for folder, suffix in (("models", ".py"), ("studies", ".yaml"), ("docs", ".md")):
        assert {f"{folder}/{f}" for f in tree(folder, suffix)} <= built.in_sdist
    top = {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt"}
    assert {*top, "tests/test_packaging.py", "tests/models/canaries.json"} <= built.in_sdist
    assert "platform/__init__.py" not in built.in_sdist


def test_an_unpacked_wheel_finds_its_models_and_studies(built: Built, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(site)
    code = (
        "import retable, retable.registry as r, retable.workspace as w\n"
        "print(retable.__file__)\n"
        "print(*r.files())\n"
        "print(r.load('msfnet').module.__file__)\n"
        "print(w.find_study('msfnet'), w.open_study('msfnet').study.study)\n"
    )
    where, models, model, study = python("-W", "error", "-c", code, cwd=tmp_path, path=site).splitlines()
    assert where == str(site / "retable" / "__init__.py")
    assert set(models.split()) >= {Path(f).stem for f in tree("models", ".py")}
    assert model == str(site / "retable" / "models" / "msfnet.py")
    assert study == f"{site / 'retable' / 'studies' / 'msfnet.yaml'} msfnet"


def test_a_checkout_finds_its_models_and_studies_from_anywhere(tmp_path: Path) -> None:
    code = "import retable.registry as r, retable.workspace as w; print(*r.files()); print(w.find_study('quickstart'))"
    models, study = python("-c", code, cwd=tmp_path, path=ROOT / "platform").splitlines()
    assert set(models.split()) >= {Path(f).stem for f in tree("models", ".py")}
    assert study == str(ROOT / "studies" / "quickstart.yaml")
