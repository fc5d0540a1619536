"""Models by name. A model's name is its file's name in ``models/``; plug-ins come by entry point or by path.

A model file exports::

    PAPER: str                  # where the architecture is from: a citation
    SEMANTICS: int              # raise it when the same config would give other numbers
    Config                      # Pydantic, frozen, extra forbidden; has num_classes, frames, size
    CONFIGS: dict[str, Config]  # named configurations, all reachable by name; the file's own name comes first
    TINY: Config                # smallest config in which every mechanism is alive
    inputs(config) -> dict[str, InputSpec]
    Model(config) -> torch.nn.Module, whose forward(**inputs) returns retable.nn.Outputs

A model that can start from an image network's weights also has a Config field ``weights: str = "none"`` and::

    architecture(config) -> str: torchvision's name of that image network; ValueError if the config has another shape
    Model.pretrained(state: dict[str, Tensor]) -> dict[str, Tensor]: from the image network's tensors, by its names, to
        the model's own that they fill (retable.nn.pretrained has what it takes); the others keep their random values
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:  # torch loads with the first model file, not with the registry
    from torch import nn

    from retable.nn import InputSpec

LINKED = {
    "num_classes": "data.num_classes",
    "frames": "data.clip.frames",
    "size": "data.clip.size",
    "stream": "data.stream",
}
"""Config fields that a model takes from the study's data section; a study never sets them under ``model``.

Every model has the first three; ``stream`` is for models of one stream whose input it chooses."""


class UnknownModelError(LookupError):
    """No model file has this name. The message lists the nearest names."""


@dataclass(frozen=True)
class ModelFile:
    """One loaded model file."""

    name: str
    module: ModuleType

    @property
    def paper(self) -> str:
        return str(self.module.PAPER)

    @property
    def semantics(self) -> int:
        return int(self.module.SEMANTICS)

    @property
    def config_class(self) -> type[BaseModel]:
        return self.module.Config  # type: ignore[no-any-return]

    @property
    def configs(self) -> Mapping[str, BaseModel]:
        return self.module.CONFIGS  # type: ignore[no-any-return]

    @property
    def tiny(self) -> BaseModel:
        return self.module.TINY  # type: ignore[no-any-return]

    @property
    def inputs(self) -> Callable[[Any], dict[str, InputSpec]]:
        return self.module.inputs  # type: ignore[no-any-return]

    def architecture(self, config: BaseModel) -> str:
        """torchvision's name of the image network whose weights fit the model of ``config``.

        Raises:
            ValueError: no published weights fit; the message says what to set.
        """
        find = getattr(self.module, "architecture", None)
        if find is None:
            raise ValueError(f"{self.name} starts from no image network: set weights none")
        return str(find(config))

    def build(self, config: BaseModel) -> nn.Module:
        """The model with freshly initialised weights (from torch's global RNG), on torch's default device."""
        return self.module.Model(config)  # type: ignore[no-any-return]


def files() -> list[str]:
    """Names of all model files: those shipped in ``models/`` and plug-ins of entry point group ``retable.models``."""
    return sorted({*_shipped(), *(e.name for e in entry_points(group="retable.models"))})


@functools.cache
def aliases() -> dict[str, tuple[str, BaseModel]]:
    """Every named configuration: name -> (file, config). Loads all model files."""
    return {name: (file, config) for file in files() for name, config in load(file).configs.items()}


def load(name: str) -> ModelFile:
    """The model file ``name``, or the ``.py`` file at that path.

    Raises:
        UnknownModelError: no such file; the message names the nearest ones.
    """
    if name.endswith(".py"):
        return ModelFile(Path(name).stem, _from_path(Path(name).resolve()))
    if name in _shipped():
        return ModelFile(name, importlib.import_module(f"retable.models.{name}"))
    for point in entry_points(group="retable.models", name=name):
        return ModelFile(name, point.load())
    raise UnknownModelError(_unknown(name, files()))


def resolve(name: str) -> tuple[ModelFile, BaseModel]:
    """The model file and base config behind ``name``: a file's name, an alias from its ``CONFIGS``, or a path.

    Raises:
        UnknownModelError: neither a file nor an alias.
    """
    if name.endswith(".py") or name in _shipped() or name in files():  # entry points are slow to list
        file = load(name)
        return file, next(iter(file.configs.values()))
    if name in aliases():
        file_name, config = aliases()[name]
        return load(file_name), config
    raise UnknownModelError(_unknown(name, [*files(), *aliases()]))


@functools.cache
def _shipped() -> tuple[str, ...]:
    models = importlib.import_module("retable.models")
    return tuple(m.name for m in pkgutil.iter_modules(models.__path__) if not m.name.startswith("_"))


@functools.cache
def _from_path(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownModelError(f"there is no model file at {path}")
    spec = importlib.util.spec_from_file_location(f"retable_model_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Pydantic resolves annotations through sys.modules
    spec.loader.exec_module(module)
    return module


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, sorted(set(known)), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(set(known)))}"
    return f"there is no model {name!r}; {hint}"
