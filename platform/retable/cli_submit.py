"""``retable submit``, ``jobs``, ``stop``: a study on a cluster, from this machine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retable.cli_options import Chosen, Json, Offline, Places, spread
from retable.console import err, out, print_json

if TYPE_CHECKING:
    from retable.execute.jobs import Cluster

INTERRUPTED = 130

ClusterFile = Annotated[
    Path | None, typer.Option("--cluster", help="A cluster file; a tunnel is opened for the time of this command.")
]
Dashboard = Annotated[
    str | None, typer.Option("--address", help="The dashboard's URL. Default: http://127.0.0.1:8265, a tunnel's end.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Train failed runs again.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    app.command()(spread(submit))
    app.command()(jobs)
    app.command()(stop)
    app.command("run-submitted", hidden=True)(spread(run_submitted))


def submit(
    chosen: Chosen,
    places: Places,
    offline: Offline = False,
    retry_failed: RetryFailed = False,
    cluster: ClusterFile = None,
    address: Dashboard = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", help="NAME=VALUE for the job and its workers; may be repeated.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the job's output. Ctrl-C lets it go on alone.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check, on the cluster: versions, storage, datasets, MLflow, room.")
    ] = False,
) -> None:
    """Run a study on a cluster: the current folder goes there, and `retable run` runs on the head.

    Places are the cluster's: --storage is a bucket, or a folder that all of its machines share; what is not given is
    taken from the environment there. Files that .gitignore names stay here, and so do data and results.

    Example: `retable submit studies/msfnet.yaml --cluster cluster.yaml --storage s3://bucket/runs --follow`
    """
    from retable.execute import submit as submission

    _refuse_own_folders(places)
    chosen.load()
    options, variables = [*_words(chosen, places), *_flags(offline, retry_failed)], _variables(env)
    with _reached(cluster, address) as (client, again):
        sent = submission.submission(chosen.study, options, folder=Path.cwd(), check_only=dry_run, variables=variables)
        job = submission.submit(client, sent)
        out.print(f"job {job}", highlight=False, soft_wrap=True)
        if follow or dry_run:
            raise typer.Exit(_follow(client, job, again))
        out.print(f"Look on: retable jobs {job} --follow{again}", highlight=False, soft_wrap=True)
        out.print(f"Stop it: retable stop {job}{again}", highlight=False, soft_wrap=True)


def jobs(
    job: Annotated[str | None, typer.Argument(help="Only this one.", show_default=False)] = None,
    cluster: ClusterFile = None,
    address: Dashboard = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show its output from the beginning to its end.")] = False,
    as_json: Json = False,
) -> None:
    """List the studies that were submitted to a cluster, or look on at one.

    Example: `retable jobs --cluster cluster.yaml`
    """
    with _reached(cluster, address) as (client, again):
        if job is not None and follow:
            raise typer.Exit(_follow(client, job, again))
        found = [client.job(job)] if job is not None else client.jobs()
    if as_json:
        print_json({"schema": 1, "jobs": found})
        return
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each["started"]))
        out.print(f"{each['id']:36} {each['status']:9} {when}  {each['about']}", highlight=False, soft_wrap=True)
    if not found:
        out.print("no studies were submitted there")


def stop(
    job: Annotated[str, typer.Argument(help="The id that submit printed; `retable jobs` lists them.")],
    cluster: ClusterFile = None,
    address: Dashboard = None,
) -> None:
    """Stop a submitted study: its runs save where they are, then end. Submitting it again goes on from there.

    Example: `retable stop msfnet-1125-214500-1a2b --cluster cluster.yaml`
    """
    from retable.execute.submit import STOP_SECONDS

    with _reached(cluster, address) as (client, _):
        if not client.stop(job):
            out.print(f"{job} had ended already ({client.job(job)['status']})")
            return
        out.print("stopping; its runs save first")
        facts = client.wait(job, STOP_SECONDS + 10)
    if not facts["ended"]:
        err.print(f"{job} is still stopping: retable jobs {job} tells when it has")
        raise typer.Exit(3)
    out.print(f"{job}: {facts['status']}; submit the study again to go on")


def run_submitted(
    ctx: typer.Context,
    chosen: Chosen,
    places: Places,
    offline: Offline = False,
    retry_failed: RetryFailed = False,
    told: Annotated[str, typer.Option("--from", help="Versions of the machine that submitted, as JSON.")] = "{}",
    check_only: Annotated[bool, typer.Option("--check-only")] = False,
) -> None:
    """What a job runs on the head: compare versions, then `retable run` on the cluster around it, or only checks."""
    from retable.execute import nodes, preflight

    wrong = nodes.differing(json.loads(told), nodes.versions())
    if wrong:
        err.print(
            f"the cluster has {', '.join(wrong)} as on the machine that submitted: install the same", soft_wrap=True
        )
        raise typer.Exit(3)
    if not check_only:
        run = ctx.find_root().command.commands["run"]  # type: ignore[attr-defined]
        words = [chosen.study, *_words(chosen, places), *_flags(offline, retry_failed), "--address", "auto"]
        raise typer.Exit(run.main(words, standalone_mode=False) or 0)
    workspace, loaded = places.open(), chosen.load()
    plan = chosen.plan(loaded, workspace)
    found = preflight.examine(loaded, plan, workspace, err, record=not offline, address="auto")
    for check in ({"name": "versions", "ok": True, "found": "the same"}, *found):
        out.print(
            f"{'ok  ' if check['ok'] else 'FAIL'} {check['name']}: {check['found']}", markup=False, soft_wrap=True
        )
    raise typer.Exit(0 if all(check["ok"] for check in found) else 3)


def _words(chosen: Chosen, places: Places) -> list[str]:
    """What was chosen, as options of `retable run`."""
    given: list[tuple[str, object]] = [("--profile", chosen.profile), ("--seeds", chosen.seeds)]
    lists = {"--seed": chosen.seed, "--tables": chosen.tables, "--rows": chosen.rows, "--set": chosen.set_}
    given += [(name, value) for name, values in lists.items() for value in values or []]
    given += [("--storage", places.storage), ("--data", places.data), ("--tracking-uri", places.tracking)]
    return [word for name, value in given if value is not None for word in (name, str(value))]


def _variables(pairs: list[str] | None) -> dict[str, str]:
    wrong = [pair for pair in pairs or [] if "=" not in pair.lstrip("=")]
    if wrong:
        raise typer.BadParameter(f"--env {wrong[0]} has no value: write NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs or [])


def _flags(offline: bool, retry_failed: bool) -> list[str]:
    return [*(["--offline"] if offline else []), *(["--retry-failed"] if retry_failed else [])]


def _refuse_own_folders(places: Places) -> None:
    from retable.execute.nodes import local_folder

    for name, value in (("storage", places.storage), ("data", places.data)):
        if local_folder(value):
            raise typer.BadParameter(
                f"--{name} {value} is a folder of this machine: give the absolute path of a folder that all machines of"
                f" the cluster share{', or a bucket' if name == 'storage' else ''}"
            )


@contextmanager
def _reached(file: Path | None, address: str | None) -> Iterator[tuple[Cluster, str]]:
    """The cluster, and the options that name it in the next command."""
    from retable.execute import jobs
    from retable.execute.submit import reached
    from retable.execute.upload import UploadRefused

    if file is not None and address is not None:
        raise typer.BadParameter("give --cluster or --address, not both")
    try:
        if file is None:
            yield jobs.Cluster(address or jobs.DEFAULT_ADDRESS), f" --address {address}" if address else ""
            return
        with reached(file) as client:
            yield client, f" --cluster {file}"
    except (jobs.JobsUnavailable, UploadRefused) as error:
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(3) from None


def _follow(client: Cluster, job: str, again: str) -> int:
    try:
        facts = client.follow(job, _show)
    except KeyboardInterrupt:
        err.print(
            f"\n{job} goes on. Look on again: retable jobs {job} --follow{again}", highlight=False, soft_wrap=True
        )
        return INTERRUPTED
    if facts["status"] == "failed" and facts["exit_code"] is None:
        err.print(f"{job} failed: {facts['message']}", markup=False, highlight=False, soft_wrap=True)
        return 3
    return INTERRUPTED if facts["stopped"] else int(facts["exit_code"] or 0)


def _show(text: str) -> None:
    lines = text.splitlines(keepends=True)
    sys.stdout.write("".join(line for line in lines if not any(words in line for words in _OF_RAY)))
    sys.stdout.flush()


_OF_RAY = ("Running entrypoint for job ", "Runtime env is setting up.")
