"""What the pages say holds: their studies load, their commands exist, their links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from retable import cli, registry, testing
from retable.data import config as data_config
from retable.study import config as study_config
from retable.study import schema
from retable.study.check import check
from retable.study.load import parse

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN_MODEL = "tiny3d.py"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language and text, and the line on which the text begins."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, found.start()) + 2, found[1], found[2])


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


BLOCKS = [block for page in PAGES for block in blocks(page)]
STUDIES = [b for b in BLOCKS if b.language == "yaml" and b.text.startswith("study:")]
SHELL = [
    (f"{block.page.relative_to(ROOT)}:{block.line + i}", line.strip())
    for block in BLOCKS
    if block.language in ("", "sh", "bash")
    for i, line in enumerate(block.text.splitlines())
]
COMMANDS = [(place, line) for place, line in SHELL if line.startswith("retable ")]
INLINE = [(page, c) for page in PAGES for c in re.findall(r"`(retable [^`\n]+)`", prose(page))]


@pytest.mark.parametrize("block", STUDIES, ids=str)
def test_every_study_on_the_pages_is_sound(
    block: Block, own_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_model.parent)
    assert [str(problem) for problem in check(parse(block.text, str(block)))] == []


@pytest.mark.parametrize(("place", "line"), COMMANDS, ids=[place for place, _ in COMMANDS])
def test_every_command_on_the_pages_is_one_that_the_command_line_takes(place: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command, name = subcommand(words)
    context = command.make_context(name, words)
    given = [value for value in context.params.values() if isinstance(value, str) and value.startswith("studies/")]
    assert all((ROOT / name).is_file() for name in given), f"{place}: {given}"


@pytest.mark.parametrize(("page", "line"), INLINE, ids=[line for _, line in INLINE])
def test_commands_in_the_text_name_commands_and_options_that_exist(page: Path, line: str) -> None:
    words = shlex.split(line)[1:]
    command, _ = subcommand(words)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("-")} <= known


def subcommand(words: list[str]) -> tuple[Any, str]:
    """The command that ``words`` begins with, taken out of it, and its name."""
    command, name = typer.main.get_command(cli.app), "retable"
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    return command, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_pages_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    rooms = "benchmarks|docs|models|platform|studies|tests"
    named = re.findall(rf"`((?:{rooms})/[^`<>*\s]+)`", prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_make_targets_on_the_pages_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {line.split()[1] for _, line in SHELL if line.startswith("make ")}
    asked |= {name for page in PAGES for name in re.findall(r"`make (\w+)`", prose(page))}
    assert "demo" in asked
    assert asked <= targets


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in (ROOT / "README.md", ROOT / "docs" / "README.md")
        for target in re.findall(r"\]\(([^)\s:]+)\)", prose(page))
    }
    indices = {ROOT / "README.md", ROOT / "docs" / "README.md"}
    assert set(PAGES) - indices <= linked


def typed(*modules: Any) -> Iterator[tuple[str, str]]:
    """Every (class, field) of the modules' own settings."""
    for module in modules:
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__module__ == module.__name__:
                yield from ((kind.__name__, name) for name in kind.model_fields)


def test_every_key_of_the_study_format_is_explained() -> None:
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", page))
    fields = [*typed(schema), *typed(data_config), *((c, n) for c, n in typed(study_config) if c != "Config")]
    assert ("Row", "mean_over") in fields
    assert ("Recipe", "epochs") in fields
    assert [field for field in fields if field[1] not in words] == []


def test_environment_variables_on_the_pages_are_those_that_the_code_reads() -> None:
    read = {name for file in (ROOT / "platform").rglob("*.py") for name in _variables(file)}
    explained = _variables(ROOT / "docs" / "running.md")
    assert read == explained


def _variables(file: Path) -> set[str]:
    return set(re.findall(r"\bRETABLE_[A-Z]+\b", file.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's model file."""
    code = next(b.text for b in BLOCKS if b.language == "python" and b.text.startswith(f"# {OWN_MODEL}"))
    path = tmp_path_factory.mktemp("tutorial") / OWN_MODEL
    path.write_text(code)
    return path


@pytest.mark.parametrize("contract", testing.MODEL_CONTRACT, ids=lambda contract: contract.__name__)
def test_the_tutorials_model_passes_the_contract(own_model: Path, contract: testing.Check) -> None:
    file = registry.load(str(own_model))
    contract(file, file.tiny)


def test_the_example_of_python_code_prints_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = next(b for b in BLOCKS if b.page.name == "running.md" and b.language == "python").text
    monkeypatch.setenv("RETABLE_STORAGE", str(tmp_path))
    monkeypatch.setenv("RETABLE_DATA", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    frame = names["frame"]
    assert set(frame["table"]) >= {"table1", "table2"}
    assert json.loads(frame.to_json())
