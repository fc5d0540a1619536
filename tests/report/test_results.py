"""The table document: what fills a cell, what a hole says, what is compared with the paper and what is not."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from retable.report.render import render
from retable.report.results import COLUMNS, document, results
from retable.study.config import Config
from retable.track.records import RunRecord

Json = dict[str, Any]


def table(doc: Json, name: str) -> Json:
    return next(t for t in doc["tables"] if t["id"] == name)


def cell(doc: Json, place: str) -> Json:
    name, row, column = place.split(".")
    return next(r for r in table(doc, name)["rows"] if r["id"] == row)["cells"][column]  # type: ignore[no-any-return]


def notes(doc: Json, place: str) -> list[str]:
    footnotes = {note["n"]: note["text"] for note in table(doc, place.split(".")[0])["footnotes"]}
    return [footnotes[n] for n in cell(doc, place)["notes"]]


@pytest.fixture
def doc(small: Any) -> Json:
    plan = small.plan()
    return document(plan, small.some_records(plan), counts=small.counts)


def test_nothing_recorded_gives_counts_and_says_why_the_rest_is_empty(small: Any) -> None:
    doc = document(small.plan(), {}, counts=small.counts)
    assert cell(doc, "t1.se.params")["mean"] == pytest.approx(21.879661)
    assert cell(doc, "t1.se.top1")["status"] == "missing"
    assert notes(doc, "t1.se.top1") == ["Not run yet."]
    assert doc["seeds"] == [0]


def test_every_cell_without_a_value_has_its_reason(doc: Json) -> None:
    for t in doc["tables"]:
        for row in t["rows"]:
            for name, found in row["cells"].items():
                empty = not found["values"] and found["status"] not in ("text", "quoted")
                assert not empty or notes(doc, f"{t['id']}.{row['id']}.{name}"), (t["id"], row["id"], name)


@pytest.mark.parametrize(
    ("place", "status", "note"),
    [
        ("t1.other.top1", "quoted", None),
        ("t1.other.params", "not in the paper", "Not in the paper."),
        ("t1.nst.top1", "not in the paper", "Not in the paper."),
        ("t1.plain.input", "text", None),
        ("t1.plain.params", "static", None),
        ("t1.se.top1", "done", None),
        ("t1.plain.top1", "partial", "Seed 2: not run yet."),
        ("t1.fsam.top1", "partial", "Seed 1: failed: the loss is nan at update 7."),
        ("t2.se.split2", "running", "Seed 0: not finished: 2 of 4 epochs."),
        ("t2.se.mean", "running", "Seed 0: not finished: 2 of 4 epochs."),
        ("t2.plain.flow", "unsupported", "The model msfnet does not read the stream flow."),
        ("t2.plain.both", "unsupported", "The model msfnet does not read the stream flow."),
    ],
)
def test_status_and_reason(doc: Json, place: str, status: str, note: str | None) -> None:
    assert cell(doc, place)["status"] == status
    if note is not None:
        assert note in notes(doc, place)


def test_values_stay_raw_and_are_averaged_over_seeds(doc: Json) -> None:
    found = cell(doc, "t1.plain.top1")
    assert [(v["seed"], v["value"]) for v in found["values"]] == [(0, 49.25), (1, 49.75)]
    assert (found["mean"], found["n"]) == (49.5, 2)
    assert found["half_width"] == pytest.approx(12.7062 * 0.25, rel=1e-5)
    assert found["difference"] == 0.0
    assert cell(doc, "t1.fsam.top1")["half_width"] is None


def test_a_mean_column_pairs_its_parts_by_seed(doc: Json) -> None:
    assert [(v["seed"], v["value"]) for v in cell(doc, "t2.plain.mean")["values"]] == [(0, (49.25 + 45.0) / 2)]


def test_asking_for_seeds_leaves_the_others_out(small: Any) -> None:
    plan = small.plan()
    doc = document(plan, small.some_records(plan), seeds=[0], counts=small.counts)
    assert doc["seeds"] == [0]
    assert cell(doc, "t1.se.top1")["status"] == "done"
    assert [v["value"] for v in cell(doc, "t1.se.top1")["values"]] == [50.0]


def test_one_seed_has_no_verdict_and_two_have_one(doc: Json) -> None:
    assert cell(doc, "t1.fsam.top1")["verdict"] is None
    assert cell(doc, "t1.plain.top1")["verdict"] == "undecided (n=2)"
    assert cell(doc, "t1.plain.params")["verdict"] == "as printed"
    assert cell(doc, "t1.fsam.params")["verdict"] == "differs"


def test_a_profile_of_other_sizes_is_not_compared_with_the_paper(small: Any) -> None:
    plan = small.plan("laptop")
    doc = document(plan, small.some_records(plan), counts=small.counts)
    assert doc["comparable"] is False
    cells = [c for t in doc["tables"] for row in t["rows"] for c in row["cells"].values()]
    assert all(c["difference"] is None and c["verdict"] is None and c["equivalence"] is None for c in cells)
    assert any("no value is compared" in s for s in table(doc, "t1")["provenance"]["sentences"])
    order = {o["column"]: o for o in table(doc, "t1")["order"]}
    assert order["top1"]["tau"] == 1.0
    assert cell(doc, "t1.fsam.top1")["to_baseline"]["same_sign"] == 1


def test_settings_by_hand_that_change_data_or_model_end_the_comparison(small: Any) -> None:
    for settings, kept in (({"data.clip.size": 64}, False), ({"recipe.epochs": 2}, True)):
        doc = document(small.plan(settings=settings), {}, counts=small.counts)
        assert doc["comparable"] is kept
        assert (cell(doc, "t1.se.params")["difference"] is not None) is kept


def test_differences_to_the_baseline_are_paired(doc: Json) -> None:
    found = cell(doc, "t1.se.top1")["to_baseline"]
    assert (found["n"], found["mean"]) == (2, pytest.approx((0.75 - 0.25) / 2))
    assert found["published"] == pytest.approx(0.6)
    assert cell(doc, "t1.plain.top1")["to_baseline"] is None


def test_claims_are_computed_seed_by_seed(doc: Json) -> None:
    ordering, gain, cost, quoted = table(doc, "t1")["claims"]
    assert ordering["printed"] is True
    assert ordering["verdict"] == "holds in 1 of 1 seed"
    assert (gain["printed"], gain["mean"]) == (pytest.approx(3.3), pytest.approx(3.75))
    assert cost["values"] == [{"seed": None, "value": pytest.approx(0.16565, rel=1e-3)}]
    assert quoted["mean"] == pytest.approx(8.0)


def test_a_claim_on_an_empty_cell_says_which(small: Any) -> None:
    doc = document(small.plan(), {}, counts=small.counts)
    assert table(doc, "t1")["claims"][0]["reason"] == "t1.fsam.top1 has no value"
    fewer = document(small.plan(rows=["plain", "se"]), {}, counts=small.counts)
    assert table(fewer, "t1")["claims"][0]["reason"] == "t1.fsam.top1 is not in the tables shown"


def test_a_claim_on_a_quoted_value_needs_a_comparable_profile(small: Any) -> None:
    plan = small.plan("laptop")
    doc = document(plan, small.some_records(plan), counts=small.counts)
    assert "quoted" in table(doc, "t1")["claims"][3]["reason"]


def test_without_the_dataset_at_hand_the_same_records_give_the_same_numbers(small: Any) -> None:
    known, unknown = small.plan(), small.plan(fingerprint=small.not_at_hand)
    records = small.some_records(known)
    docs = [document(plan, records, counts=small.counts) for plan in (known, unknown)]
    assert render(docs[0], "terminal") == render(docs[1], "terminal")
    values = [results(doc).dropna(subset="run_id").reset_index(drop=True) for doc in docs]
    assert len(values[0]) > 5
    assert values[0].equals(values[1])


def test_versions_of_a_dataset_are_never_mixed(small: Any) -> None:
    old, new = small.plan(), small.plan(fingerprint=lambda data: "e" * 32)
    training = next(iter(new.trainings.values()))
    other = small.done(training.run(7), 99.0)
    records = small.some_records(old) | {other.run_id: other}
    doc = document(small.plan(fingerprint=small.not_at_hand), records, counts=small.counts)
    assert [v["value"] for v in cell(doc, "t1.plain.top1")["values"]] == [49.25, 49.75]
    assert any("2 versions of ucf101" in s for s in table(doc, "t1")["provenance"]["sentences"])


def test_a_run_of_another_study_or_config_is_not_used(small: Any) -> None:
    plan = small.plan()
    foreign = small.some_records(small.plan(settings={"recipe.epochs": 3}))
    assert cell(document(plan, foreign, counts=small.counts), "t1.se.top1")["status"] == "missing"


def test_a_run_that_was_not_scored_under_the_protocol_says_so(small: Any) -> None:
    plan = small.plan()
    records = {key: dataclasses.replace(r, evaluations={}) for key, r in small.some_records(plan).items()}
    doc = document(plan, records, counts=small.counts)
    assert notes(doc, "t1.se.top1") == ["Trained, but top1 is not recorded under this protocol."]


def test_mixed_devices_and_versions_are_said(small: Any) -> None:
    plan = small.plan()
    records = small.some_records(plan)
    gpu = {"device": "GPU", "host": "b", "python": "3.11.9", "torch": "2.14.0"}
    run = plan.runs[0]
    records[run.run_id] = small.done(run, 49.0, gpu)
    found = table(document(plan, records, counts=small.counts), "t1")["provenance"]
    assert found["devices"] == {"GPU": 1, "cpu x86_64": 5}
    assert "Devices are mixed. Versions of torch are mixed." in found["sentences"][-1]


def test_a_model_that_cannot_be_counted_leaves_a_hole(small: Any) -> None:
    def broken(config: Config, metric: str) -> float:
        raise RuntimeError("a kernel larger than its input")

    doc = document(small.plan(), {}, counts=broken)
    assert cell(doc, "t1.se.params")["status"] == "failed"
    assert notes(doc, "t1.se.params") == ["Could not be counted: a kernel larger than its input."]


def test_rows_and_tables_that_were_not_asked_for_are_left_out(small: Any) -> None:
    doc = document(small.plan(tables=["t2"], rows=["se"]), {}, counts=small.counts)
    assert [(t["id"], [row["id"] for row in t["rows"]]) for t in doc["tables"]] == [("t2", ["se"])]


def test_the_document_is_plain_json(doc: Json) -> None:
    assert json.loads(json.dumps(doc, allow_nan=False)) == doc
    assert doc["schema"] == 1


def test_long_form_has_a_line_per_value_and_one_per_empty_cell(doc: Json) -> None:
    frame = results(doc)
    assert tuple(frame.columns) == COLUMNS
    assert len(frame[(frame.table == "t1") & (frame.row == "se") & (frame.column == "top1")]) == 3
    empty = frame[(frame.table == "t2") & (frame.row == "plain") & (frame.column == "flow")]
    assert empty.status.tolist() == ["unsupported"]
    assert empty.value.isna().all()
    assert frame.value.dtype == "float64"


def test_a_failed_record_keeps_its_reason_even_without_one(small: Any) -> None:
    plan = small.plan()
    run = plan.runs[0]
    doc = document(plan, {run.run_id: RunRecord(run.to_json(), "failed")}, counts=small.counts)
    assert notes(doc, "t1.plain.top1") == ["Failed: no reason was recorded."]
    assert cell(doc, "t1.plain.top1")["status"] == "failed"
