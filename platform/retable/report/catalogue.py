"""The models there are: paper, named configurations, parameters and GMACs per view."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from retable import registry
from retable.nn import count


def entries(name: str | None = None) -> list[dict[str, Any]]:
    """Every model file (or the one behind ``name``) with its named configurations, counted on the meta device.

    Raises:
        UnknownModelError: there is no such model.
    """
    files = [registry.load(file) for file in registry.files()] if name is None else [registry.resolve(name)[0]]
    return [_entry(file) for file in files]


def show(found: list[dict[str, Any]], out: Console, *, knobs: bool) -> None:
    """Print the catalogue for people; with ``knobs`` every knob and its default too."""
    for entry in found:
        out.print(f"{entry['name']}: {entry['paper']}")
        for config in entry["configs"]:
            inputs = ", ".join(f"{k} {'x'.join(map(str, v))}" for k, v in config["inputs"].items())
            counts = f"{config['params'] / 1e6:9.3f} M params {config['gmacs']:9.3f} GMACs/view"
            out.print(f"  {config['name']:20} {counts}  {inputs}")
    if knobs:
        for entry in found:
            out.print(f"\nknobs of {entry['name']}:")
            for knob in entry["knobs"]:
                out.print(f"  {knob['name']} = {knob['default']}  {knob['description'] or ''}".rstrip())


def _entry(file: registry.ModelFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "paper": file.paper,
        "semantics": file.semantics,
        "knobs": [
            {"name": name, "default": field.get_default(call_default_factory=True), "description": field.description}
            for name, field in file.config_class.model_fields.items()
            if name not in registry.LINKED
        ],
        "configs": [_config(file, name, config) for name, config in file.configs.items()],
    }


def _config(file: registry.ModelFile, name: str, config: Any) -> dict[str, Any]:
    inputs = file.inputs(config)
    return {
        "name": name,
        "config": config.model_dump(mode="json"),
        "inputs": {key: list(spec.shape) for key, spec in inputs.items()},
        "params": count.parameters(lambda: file.build(config)),
        "gmacs": count.macs(lambda: file.build(config), inputs) / 1e9,
    }
