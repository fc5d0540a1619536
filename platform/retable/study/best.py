"""The answer of a study's search as a table: its best trial, trained on all of train and scored on test. Pure."""

from __future__ import annotations

from dataclasses import replace

from retable.study.load import LoadedStudy
from retable.study.schema import Column, Row, Table
from retable.study.search_schema import Search
from retable.study.tuned import Tuned

TABLE, ROW = "search-best", "best"
PLACE = TABLE, ROW


def with_best(loaded: LoadedStudy, search: Search, tuned: Tuned) -> LoadedStudy:
    """The study with a last table for the best trial of ``search``, whose values ``make_plan`` takes from
    ``{PLACE: tuned}``. The search must have one objective and a whole trial."""
    study = loaded.study
    value = f"{tuned.value:.4g} on the {'test' if tuned.on == 'test' else 'held-out'} videos"
    caption = f"The search's best trial ({tuned.trial}: {tuned.metric} {value}), trained on all of train"
    columns = {
        "params": Column(metric="params", unit="M", decimals=2, better="lower", tuned=True),
        tuned.metric: Column(metric=tuned.metric, unit="%", label=f"test {tuned.metric}", decimals=1, tuned=True),
    }
    row = Row(id=ROW, label=f"trial {tuned.trial}")
    table = Table(id=TABLE, caption=caption, columns=columns, rows=(row,), set=search.set, notes=(tuned.footnote,))
    kept = tuple(t for t in study.tables if t.id != TABLE)
    return replace(loaded, study=study.model_copy(update={"tables": (*kept, table)}))
