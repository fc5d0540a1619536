"""``retable weights``: what initial weights there are, where they go, and getting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retable.cli_options import Json
from retable.console import err, out, print_json

app = typer.Typer(no_args_is_help=True, help="Initial weights: list, fetch, import. Nothing is downloaded unasked.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the published weights that some model starts from, and whether they are here.

    Example: `retable weights list`
    """
    from retable.weights import store

    entries = store.entries()
    if as_json:
        print_json({"schema": 1, "weights": [entry.to_json() for entry in entries]})
        return
    for entry in entries:
        state = f"in {entry.path}" if entry.present else "not here"
        out.print(f"{entry.name:16} {entry.file:32} for {', '.join(entry.models)}: {state}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name from `retable weights list`, or a URL with a hash.")],
) -> None:
    """Download one file of weights, verify its hash, and put it where runs look for it.

    Example: `retable weights fetch resnet50`
    """
    from retable.progress import progress
    from retable.weights import store

    with progress(f"fetching {name}", err) as told:
        path = store.fetch(name, lambda done, total: told(done, total or done))
    out.print(f"{name} is in {path}")


@app.command("import")
def import_(path: Annotated[Path, typer.Argument(help="A file of weights on this machine.")]) -> None:
    """Take a file into the weights folder, and say what to write as `weights` in a study.

    Example: `retable weights import ~/bn_inception.pth`
    """
    from retable.weights import store

    done = store.import_file(path)
    out.print(f"{done.architecture} weights are in {done.path}")
    out.print(f"in a study: model: {{weights: {done.value}}}")
