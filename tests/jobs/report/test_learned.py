"""What columns say about a record, and that columns of others, unfinished or damaged ones are left out."""

from __future__ import annotations

from pathlib import Path

from jobs.report.learned import LearnedColumns
from tests.jobs.report.columns import captioned, write_column


def test_a_record_is_told_of_by_every_column_and_by_none_that_is_missing(tmp_path: Path) -> None:
    dataset = captioned(tmp_path / "d", concepts=[["dog", "grass"], []])
    keys = dataset.index(0).keys
    bare = LearnedColumns(dataset, concepts="concepts").of(0, keys[0])
    assert bare.concepts == {"dog": 0.5, "grass": 0.49}
    assert (bare.similarities, bare.kept, bare.hard, bare.swaps) == ((), (), (), ())
    write_column(dataset, "similarity", {"similarity": [[0.25, None], [0.5, 0.75]]})
    write_column(dataset, "mine", {"keep": [[True, False], [True, True]]}, {"rule": {"by": "similarity"}})
    write_column(dataset, "negatives", {"captions": [["a cat"], []], "scores": [[0.5], []], "sources": [["other"], []]})
    write_column(dataset, "swaps", {"captions": [["a red dog"], []], "annotations": [[1], []], "kinds": [["x"], []]})
    columns = LearnedColumns(dataset, concepts="concepts")
    first, second = (columns.of(0, key) for key in keys)
    assert first.similarities == (0.25, None)
    assert first.kept == (True, False)
    assert [(each.text, each.score, each.source) for each in first.hard] == [("a cat", 0.5, "other")]
    assert [(each.text, each.annotation, each.kind) for each in first.swaps] == [("a red dog", 1, "x")]
    assert (second.concepts, second.hard, second.swaps) == ({}, (), ())
    assert second.kept == (True, True)


def test_of_several_columns_of_a_name_a_finished_one_is_shown_and_the_others_are_named(tmp_path: Path) -> None:
    dataset = captioned(tmp_path / "d", concepts=[["dog"]])
    dataset.storage.create("sidecars/concepts-00000000/column.json", b'{"column": "concepts", "digest8": "00000000"}')
    columns = LearnedColumns(dataset, concepts="concepts")
    assert columns.concepts is not None
    assert columns.concepts.folder == "sidecars/concepts-0a1b2c3d"
    assert columns.others == ("concepts-00000000",)
    unfinished = LearnedColumns(dataset, concepts="concepts-00000000")
    assert unfinished.of(0, dataset.index(0).keys[0]).concepts == {}


def test_a_damaged_column_is_left_out(tmp_path: Path) -> None:
    dataset = captioned(tmp_path / "d", concepts=[["dog"]])
    (tmp_path / "d" / "sidecars" / "concepts-0a1b2c3d" / "column.json").write_text("{")
    assert LearnedColumns(dataset, concepts="concepts").concepts is None
