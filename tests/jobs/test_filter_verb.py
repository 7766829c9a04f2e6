from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from concepts.similarity import SimilarityScorer
from jobs.cli import main
from shards.reader import Dataset, open_dataset
from shards.sidecar import open_sidecar
from shards.view import ViewRule, open_view
from tests.concepts.worlds import captioned_dataset, tiny_clip
from tests.jobs.report.modalities import kinds, write_kind

__all__ = ["captioned_dataset", "tiny_clip"]

MakeDataset = Callable[..., Dataset]
MakeClip = Callable[..., dict[str, Any]]


def words(dataset: Dataset, clip: dict[str, Any], *more: str) -> list[str]:
    embedder = [f"embedder.model={clip['model']}", f"embedder.pretrained={clip['pretrained']}"]
    return ["filter", f"dataset={dataset.path}", *embedder, *more]


def column(dataset: Dataset, name: str, field: str) -> dict[str, list[Any]]:
    sidecar = open_sidecar(dataset, name)
    tables = [sidecar.table(shard) for shard in range(len(dataset.manifest))]
    return {row["key"]: row[field] for table in tables for row in table.to_pylist()}


def sidecars(dataset: Dataset) -> dict[str, bytes]:
    root = Path(dataset.path) / "sidecars"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_best_share_of_all_captions_is_kept_and_a_stream_sees_no_other(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = captioned_dataset()
    assert main(words(dataset, tiny_clip(), "keep=0.5", "last_caption=drop")) == 0
    assert "31 of 63 captions" in capsys.readouterr().out
    cosines, kept = column(dataset, "similarity", "similarity"), column(dataset, "selection", "keep")
    pairs = [(cosine, keep) for key in cosines for cosine, keep in zip(cosines[key], kept[key], strict=True)]
    assert sum(keep for _, keep in pairs) == 31
    assert min(cosine for cosine, keep in pairs if keep) >= max(cosine for cosine, keep in pairs if not keep)
    assert sum(open_view(dataset, "annotations", ViewRule(select="selection")).sizes) == 31
    bar = sorted(cosine for cosine, _ in pairs)[40]
    by_rule = open_view(dataset, "annotations", ViewRule(where=f"similarity > {bar!r}"))
    assert sum(by_rule.sizes) == sum(cosine > bar for cosine, _ in pairs)


def test_no_picture_loses_its_last_caption_unless_asked(captioned_dataset: MakeDataset, tiny_clip: MakeClip) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    assert main(words(dataset, clip, "keep=0.1", "column=careful")) == 0
    assert main(words(dataset, clip, "keep=0.1", "last_caption=drop", "column=strict")) == 0
    cosines = column(dataset, "similarity", "similarity")
    careful, strict = column(dataset, "careful", "keep"), column(dataset, "strict", "keep")
    lost = [key for key, keep in strict.items() if not any(keep)]
    assert lost
    for key, keep in careful.items():
        wanted = strict[key] if key not in lost else [value == max(cosines[key]) for value in cosines[key]]
        assert keep == wanted


def test_half_of_each_picture_is_one_of_three(captioned_dataset: MakeDataset, tiny_clip: MakeClip) -> None:
    dataset = captioned_dataset()
    assert main(words(dataset, tiny_clip(), "keep=0.5", "per=image")) == 0
    cosines = column(dataset, "similarity", "similarity")
    for key, keep in column(dataset, "selection", "keep").items():
        assert keep == [value == max(cosines[key]) for value in cosines[key]]


def test_near_duplicates_are_seen_once(captioned_dataset: MakeDataset, tiny_clip: MakeClip) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    # Random weights find all pictures alike: with a low bar all are one group, whose first picture stays.
    assert main(words(dataset, clip, "by=duplicates", "likeness=-0.99", "column=once")) == 0
    kept = column(dataset, "once", "keep")
    assert [key for key, keep in kept.items() if any(keep)] == ["made-000"]
    assert kept["made-000"] == [True, True, True]


def test_a_run_that_was_cut_off_goes_on_and_ends_in_the_same_bytes(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, clip = captioned_dataset(), tiny_clip()
    cut = open_dataset(shutil.copytree(whole.path, tmp_path / "cut"))
    assert main(words(whole, clip)) == 0
    score, scored = SimilarityScorer.__call__, []

    def interrupted_at_the_second(self: SimilarityScorer, unit: Any) -> int:
        scored.append(unit.shard)
        if len(scored) == 2:
            raise KeyboardInterrupt
        return score(self, unit)

    monkeypatch.setattr(SimilarityScorer, "__call__", interrupted_at_the_second)
    assert main(words(cut, clip)) == 130
    assert main(words(cut, clip)) == 0
    assert scored == [0, 1, 1, 2]
    assert sidecars(cut) == sidecars(whole)
    assert main(words(cut, clip)) == 0
    assert sidecars(cut) == sidecars(whole)


def test_an_option_of_the_other_rule_is_refused(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(captioned_dataset(), tiny_clip(), "by=duplicates", "keep=0.5")) == 2
    assert "keep has no meaning with by=duplicates" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = captioned_dataset()
    assert main([*words(dataset, tiny_clip(), "keep=0.5"), "--dry-run"]) == 0
    assert "keep=0.5, per=dataset" in capsys.readouterr().out
    assert not (Path(dataset.path) / "sidecars").exists()


def test_near_duplicates_are_found_whatever_is_said_about_the_pictures_and_name_the_one_that_is_kept(
    tiny_clip: MakeClip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_kind(tmp_path / "asked", kinds()["questions"], records=4)  # four times the same picture
    assert main(words(dataset, tiny_clip(), "by=duplicates", "column=once")) == 0
    assert "1 groups of near duplicates" in capsys.readouterr().out
    sidecar = open_sidecar(dataset, "once")
    keys = dataset.index(0).keys
    assert sidecar.table(0)["duplicate_of"].to_pylist() == [None, *[keys[0]] * 3]
    assert [all(row) for row in sidecar.table(0)["keep"].to_pylist()] == [True, False, False, False]
    assert sidecar.card["outcome"]["groups"] == 1
    assert not list((tmp_path / "asked" / "sidecars").glob("caption_embedding-*"))
    assert main(words(dataset, tiny_clip())) == 1
    assert "holds annotations of the type question and no caption" in capsys.readouterr().err


def test_the_column_tells_the_cut(captioned_dataset: MakeDataset, tiny_clip: MakeClip) -> None:
    dataset = captioned_dataset()
    assert main(words(dataset, tiny_clip(), "keep=0.5", "last_caption=drop")) == 0
    cosines, kept = column(dataset, "similarity", "similarity"), column(dataset, "selection", "keep")
    pairs = [(cosine, keep) for key in kept for cosine, keep in zip(cosines[key], kept[key], strict=True)]
    outcome = open_sidecar(dataset, "selection").card["outcome"]
    assert outcome["cut"] == pytest.approx(min(cosine for cosine, keep in pairs if keep))
    assert outcome["kept"] == sum(keep for _, keep in pairs)
