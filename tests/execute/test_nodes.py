"""What makes a machine of a cluster unfit, as said by the driver; one machine alone fits itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from retable.execute.driver import refuse_this_machines_own, still_missing
from retable.execute.nodes import Facts, differing, judge, look, refuse_unfit
from retable.execute.order import Order
from retable.execute.trial import trial
from retable.track.claims import Process
from retable.track.drivers import Driver
from retable.track.storage import StorageError
from retable.workspace import Workspace
from tests.execute.small import study

MINE = Facts("head", {"ray": "2.60.0", "torch": "2.15.0"}, None, {"ucf101": "abc"}, {})


def order(workspace: Workspace) -> Order:
    return still_missing(workspace.plan(study()), workspace).orders[0]


def test_versions_that_differ_are_named_with_both() -> None:
    assert differing({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == ["b 3 instead of 2"]
    assert differing({"a": "1"}, {}) == ["a missing instead of 1"]


def test_every_fault_of_every_machine_is_named() -> None:
    others = [
        replace(MINE, host="one", versions={"ray": "2.60.0", "torch": "2.14.0"}),
        replace(
            MINE, host="two", storage="/shared is not the driver's folder", data={}, missing={"ucf101": "no folder"}
        ),
        replace(MINE, host="three", data={"ucf101": "other"}),
        replace(MINE, host="four"),
    ]
    assert judge(MINE, others) == [
        "one: torch 2.14.0 instead of 2.15.0",
        "two: /shared is not the driver's folder",
        "two: no folder",
        "three: dataset ucf101 has other files than on head: copy it anew, or share one folder",
    ]


def test_a_machine_sees_whether_the_drivers_folder_is_its_own(workspace: Workspace) -> None:
    places = order(workspace).places
    assert "is not the driver's folder" in str(look(places, []).storage)
    with Driver(workspace.storage, places.driver):
        facts = look(places, ["motions-ucf101", "ucf101"])
    assert facts.storage is None
    assert list(facts.data) == ["motions-ucf101"]
    assert "there is no folder" in facts.missing["ucf101"]
    assert workspace.storage.names("drivers") == []


def test_a_trial_on_a_machine_with_another_disk_trains_nothing(workspace: Workspace) -> None:
    asked = order(workspace)
    asked = replace(asked, places=replace(asked.places, driver=Process("other-host/0123abcd", 4242, 1.0)))
    ended = trial({"order": asked}, {})
    assert ended["status"] == "environment"
    assert "--storage must be a bucket, or a folder that all of them share" in ended["reason"]
    assert workspace.storage.run_ids() == []


def test_one_machine_alone_fits(workspace: Workspace, ray_local: None) -> None:
    asked = order(workspace)
    with Driver(workspace.storage, asked.places.driver):
        assert refuse_unfit([asked]) == 1


@pytest.mark.parametrize(("storage", "says"), [(".retable", "absolute path"), ("s3://b/x", "needs --tracking-uri")])
def test_places_of_this_machine_are_refused_for_a_cluster(storage: str, says: str, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=says):
        refuse_this_machines_own(Workspace(storage), record=True)
    refuse_this_machines_own(Workspace(str(tmp_path)), record=True)
    refuse_this_machines_own(Workspace("s3://b/x"), record=False)
