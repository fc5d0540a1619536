"""``retable ui``: MLflow or optuna-dashboard on this machine. Parse, call, print. Registered by :mod:`retable.cli`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retable.cli_options import Profile, Storage, Tracking, spread
from retable.console import out

if TYPE_CHECKING:
    from retable.track.server import Server

UI_PORT = 5050


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(spread(ui))


def ui(
    study: Annotated[
        str | None, typer.Argument(help="Print the links to this study's tables, or searches.", show_default=False)
    ] = None,
    profile: Profile = None,
    storage: Storage = None,
    tracking: Tracking = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI on 127.0.0.1.")] = UI_PORT,
    optuna: Annotated[
        bool, typer.Option("--optuna", help="Open optuna-dashboard on the searches' storage instead of MLflow.")
    ] = False,
    optuna_storage: Annotated[
        str | None, typer.Option(help="With --optuna: URL or sqlite file. Default: in the storage folder.")
    ] = None,
) -> None:
    """Start the MLflow UI on this machine only and print the links to the tables' views. Ctrl-C stops it.

    With --optuna: optuna-dashboard on the storage of searches, and the links to the study's searches. It is an optional
    package: pip install 'retable[dashboard]'.

    Example: `retable ui studies/msfnet.yaml`
    """
    from retable.track import server
    from retable.workspace import Workspace, open_study

    workspace = Workspace.open(storage, None, tracking)
    loaded = open_study(study) if study else None
    if optuna:
        from retable.execute.searching import dashboard

        with dashboard.open_dashboard(workspace.storage, optuna_storage, port) as running:
            begin = f"{loaded.study.study}-{profile or loaded.study.default_profile}-" if loaded else ""
            found = dashboard.links(running.url, workspace.storage, optuna_storage, begin)
            _until_stopped(running, "optuna-dashboard", found)
    else:
        with server.serve(workspace.tracking_uri, workspace.artifacts, port) as running:
            found = workspace.links(running.url, loaded.study, profile) if loaded else {}
            _until_stopped(running, "MLflow", found)


def _until_stopped(running: Server, name: str, links: dict[str, str]) -> None:
    out.print(f"{name}: {running.url}")
    for title, link in links.items():
        out.print(f"  {title}: {link}")
    out.print("Ctrl-C stops it.")
    running.wait()
