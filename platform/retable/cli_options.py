"""Options that several commands share, as data: a command takes :class:`Chosen` and Typer sees its fields."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from ruamel.yaml import YAML

from retable.study.problems import Problem, StudyError

if TYPE_CHECKING:
    from retable.study.load import LoadedStudy
    from retable.study.plan import Plan
    from retable.workspace import Workspace

Study = Annotated[
    str, typer.Argument(help="A study file, or the name of a shipped study (msfnet).", show_default=False)
]
Profile = Annotated[str | None, typer.Option(help="Overlay: paper, laptop, or your own. Default: the study's.")]
Storage = Annotated[
    str | None, typer.Option(help="Run storage: folder or URL. Default: $RETABLE_STORAGE or ./.retable.")
]
Data = Annotated[str | None, typer.Option(help="Folder of the datasets. Default: $RETABLE_DATA or ./data.")]
Tracking = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow. Default: sqlite in the storage folder.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do without MLflow: storage only.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Cpus = Annotated[int | None, typer.Option(min=1, help="CPUs for local training. Default: all.")]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto. Default: a private local Ray.")]


@dataclass(frozen=True)
class Local:
    """``--storage`` and ``--data``: where a command works that does without MLflow."""

    storage: Storage = None
    data: Data = None

    def open(self) -> Workspace:
        """The workspace there."""
        from retable.workspace import Workspace

        return Workspace.open(self.storage, self.data)


@dataclass(frozen=True)
class Places(Local):
    """``--storage``, ``--data`` and ``--tracking-uri``."""

    tracking: Tracking = None

    def open(self) -> Workspace:
        """The workspace there."""
        from retable.workspace import Workspace

        return Workspace.open(self.storage, self.data, self.tracking)


@dataclass(frozen=True)
class Overlaid:
    """A study under a profile, with ``--set``."""

    study: Study
    profile: Profile = None
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="path=value on top of everything, e.g. recipe.lr=1e-3.")
    ] = None

    def load(self) -> LoadedStudy:
        """The study, checked in every profile (StudyError names every fault)."""
        from retable.workspace import open_study

        return open_study(self.study)

    @property
    def settings(self) -> dict[str, Any]:
        """``--set path=value`` as settings (StudyError for one without a value)."""
        yaml = YAML(typ="safe", pure=True)
        found = {}
        for pair in self.set_ or []:
            path, equals, value = pair.partition("=")
            if not equals:
                raise StudyError([Problem("--set", 1, 1, pair, "has no value", hint="write --set path=value")])
            found[path] = yaml.load(value)
        return found


@dataclass(frozen=True)
class Chosen(Overlaid):
    """Which of a study's runs a command is about."""

    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Seeds 0..N-1.")] = None
    seed: Annotated[list[int] | None, typer.Option("--seed", help="One seed; may be repeated.")] = None
    tables: Annotated[list[str] | None, typer.Option(help="Only these tables; globs, may be repeated.")] = None
    rows: Annotated[list[str] | None, typer.Option(help="Only these rows; globs, may be repeated.")] = None

    @property
    def asked_seeds(self) -> tuple[int, ...] | None:
        """``--seeds`` and ``--seed`` together, in order; None without either."""
        if self.seeds is None and not self.seed:
            return None
        return tuple(sorted({*range(self.seeds or 0), *(self.seed or [])}))

    def plan(self, loaded: LoadedStudy, workspace: Workspace, *, recorded: bool = False) -> Plan:
        """The plan of what is chosen; seed 0 where none is. ``recorded``: MLflow knows what rows are tuned to, too."""
        return workspace.plan(
            loaded, profile=self.profile, seeds=self.asked_seeds or (0,), settings=self.settings,
            tables=self.tables or (), rows=self.rows or (), recorded=recorded,
        )  # fmt: skip


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer wants it: parameters that are dataclasses become the options that are their fields."""
    plain: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if isinstance(parameter.annotation, type) and dataclasses.is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            plain += _parameters(parameter.annotation)
        else:
            plain.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        command(**given)

    called.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]
    return called


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]
