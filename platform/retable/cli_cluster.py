"""``retable cluster``: check a cluster file, start, look at, reach and end the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from retable.cli_options import Json
from retable.console import err, out, print_json

app = typer.Typer(no_args_is_help=True, help="A Ray cluster: check its file, start it, reach it, end it.")

File = Annotated[Path, typer.Argument(help="A cluster file: cluster.yaml (AWS), clusters/onprem.yaml, ...")]


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Cluster files, or KubeRay manifests.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Say, without a network, what is wrong or unsafe in cluster files, and what is still to be filled in.

    Example: `retable cluster check cluster.yaml`
    """
    from retable.execute import clusters

    findings = {str(path): clusters.check(path) for path in files}
    faulty = any(found.problems for found in findings.values())
    if as_json:
        both = [found.to_json() for found in findings.values()]
        print_json({"schema": 1, **{key: [p for one in both for p in one[key]] for key in ("errors", "to_fill_in")}})
        raise typer.Exit(2 if faulty else 0)
    for path, found in findings.items():
        for problem in found.problems:
            out.print(f"error: {problem}")
        for problem in found.to_fill_in:
            out.print(f"to fill in: {problem}")
        out.print(f"{path}: {len(found.problems)} errors, {len(found.to_fill_in)} places to fill in")
    raise typer.Exit(2 if faulty else 0)


@app.command()
def up(
    file: File,
    restart: Annotated[
        bool, typer.Option("--restart", help="Restart Ray on a running cluster: ends its jobs.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Check the file, make a token where there is none, and start the cluster or bring a running one in line with it.

    Example: `retable cluster up cluster.yaml`
    """
    from retable.execute import clusters

    with _explained():
        clusters.require(file)
        if restart and not yes:
            typer.confirm("Restarting Ray ends every job on the cluster. Go on?", abort=True)
        clusters.up(file, restart=restart)
    out.print(f"It is up. Next: retable submit STUDY --cluster {file}; retable cluster down {file} ends it.")


@app.command()
def status(file: File) -> None:
    """Show the nodes of a running cluster, what they do, and what is waited for.

    Example: `retable cluster status cluster.yaml`
    """
    from retable.execute import clusters

    with _explained():
        out.print(clusters.status(file), markup=False)


@app.command()
def down(file: File, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """End the cluster: its nodes, and everything that is only on their disks.

    Example: `retable cluster down cluster.yaml`
    """
    from retable.execute import clusters

    with _explained():
        if not yes:
            typer.confirm("This ends the nodes, their jobs, and what is on their disks only. Go on?", abort=True)
        clusters.down(file)


@app.command()
def tunnel(
    file: File,
    dashboard: Annotated[int, typer.Option(min=1, max=65535, help="Local port of Ray's dashboard.")] = 8265,
    mlflow: Annotated[int, typer.Option(min=1, max=65535, help="Local port of MLflow.")] = 5000,
) -> None:
    """Reach the dashboard and MLflow, which listen on the head's loopback only, from this machine. Ctrl-C ends it.

    Example: `retable cluster tunnel cluster.yaml`
    """
    from retable.execute import clusters

    with _explained(), clusters.tunnel(file, {dashboard: clusters.DASHBOARD, mlflow: clusters.MLFLOW}) as running:
        out.print(f"dashboard: http://127.0.0.1:{dashboard}   MLflow: http://127.0.0.1:{mlflow}")
        out.print("Ctrl-C ends the tunnel.")
        running.wait()


@contextmanager
def _explained() -> Iterator[None]:
    """A cluster that cannot be reached or started is a line and exit code 3."""
    from retable.cluster.document import ClusterError

    try:
        yield
    except ClusterError as error:
        err.print(str(error), markup=False)
        raise typer.Exit(3) from None
