from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from concepts.negative_column import NegativeMiner
from concepts.negatives import cleaned
from concepts.nouns import ShardUnit
from jobs.cli import main
from shards.reader import Dataset, open_dataset
from shards.records import Caption
from shards.sidecar import open_sidecar
from tests.concepts.worlds import captioned_dataset, tiny_clip

__all__ = ["captioned_dataset", "tiny_clip"]

MakeDataset = Callable[..., Dataset]
MakeClip = Callable[..., dict[str, Any]]


def words(dataset: str, clip: dict[str, Any], *more: str, verb: str = "negatives") -> list[str]:
    return [
        verb,
        f"dataset={dataset}",
        f"embedder.model={clip['model']}",
        f"embedder.pretrained={clip['pretrained']}",
        *more,
    ]


def sidecars(dataset: Dataset) -> dict[str, bytes]:
    root = Path(dataset.path) / "sidecars"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_one_command_gives_every_picture_captions_of_others(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = captioned_dataset()
    # Random weights find all captions alike, so that a guard by their cosine would leave none.
    assert main(words(dataset.path, tiny_clip(), "top_k=4", "guard_cosine=1", "guard_picture=1")) == 0
    column = open_sidecar(dataset, "negatives")
    assert (
        f"{column.folder.removeprefix('sidecars/')}: 21 pictures (21 mined now, 21 embedded" in capsys.readouterr().out
    )
    assert column.is_complete
    assert column.card["guard_cosine"] == 1
    assert column.card["dataset"] == dataset.digest
    assert column.card["embedder"]["model"] == "tiny-clip"
    captions = {
        record.key: [item.text for item in record.annotations if isinstance(item, Caption)]
        for record in dataset.records(payload=False)
    }
    for shard in range(3):
        for key in dataset.index(shard).keys:
            row = column.row(shard, key)
            assert row["scores"] == sorted(row["scores"], reverse=True)
            assert len(row["captions"]) == len(row["sources"]) == 4
            assert not {cleaned(text) for text in row["captions"]} & {cleaned(text) for text in captions[key]}
            for text, source in zip(row["captions"], row["sources"], strict=True):
                assert source != key
                assert text in captions[source]


def test_a_run_that_was_cut_off_goes_on_and_ends_in_the_same_bytes(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, clip = captioned_dataset(), tiny_clip()
    cut = open_dataset(shutil.copytree(whole.path, tmp_path / "cut"))
    assert main(words(whole.path, clip, "guard_cosine=1", "guard_picture=1")) == 0
    mine, mined = NegativeMiner.__call__, []

    def interrupted_at_the_third(self: NegativeMiner, unit: ShardUnit) -> int:
        mined.append(unit.shard)
        if len(mined) == 3:
            raise KeyboardInterrupt
        return mine(self, unit)

    monkeypatch.setattr(NegativeMiner, "__call__", interrupted_at_the_third)
    assert main(words(cut.path, clip, "guard_cosine=1", "guard_picture=1")) == 130
    assert main(words(cut.path, clip, "guard_cosine=1", "guard_picture=1")) == 0
    assert mined == [0, 1, 2, 2]
    assert sidecars(cut) == sidecars(whole)


def test_running_again_does_nothing_and_another_k_embeds_nothing(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    assert main(words(dataset.path, clip)) == 0
    before = sidecars(dataset)
    capsys.readouterr()
    assert main(words(dataset.path, clip)) == 0
    assert "(0 mined now, 0 embedded now)" in capsys.readouterr().out
    assert sidecars(dataset) == before
    assert main(words(dataset.path, clip, "top_k=2")) == 0
    assert "(21 mined now, 0 embedded now)" in capsys.readouterr().out


def test_the_pictures_that_the_concepts_embedded_are_not_embedded_again(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    assert main(words(dataset.path, clip, "phrases.tagger=rules", verb="concepts")) == 0
    before = sidecars(dataset)
    assert main(words(dataset.path, clip)) == 0
    assert "(21 mined now, 0 embedded now)" in capsys.readouterr().out
    assert before.items() <= sidecars(dataset).items()


def test_one_picture_alone_gets_empty_lists(captioned_dataset: MakeDataset, tiny_clip: MakeClip) -> None:
    dataset = captioned_dataset(shards=1, records=1)
    assert main(words(dataset.path, tiny_clip())) == 0
    assert open_sidecar(dataset, "negatives").table(0).to_pylist() == [
        {"key": "made-000", "captions": [], "scores": [], "sources": []}
    ]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = captioned_dataset()
    assert main([*words(dataset.path, tiny_clip()), "--dry-run"]) == 0
    assert "21 pictures in 3 shards, 63 annotations;" in capsys.readouterr().out
    assert not (Path(dataset.path) / "sidecars").exists()


def test_prompts_around_captions_are_refused(captioned_dataset: MakeDataset, tiny_clip: MakeClip) -> None:
    templates = json.dumps(["a photo of {}"])
    assert main(words(captioned_dataset().path, tiny_clip(), f"embedder.templates={templates}")) == 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_writes_the_same_bytes_as_one_process(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, tmp_path: Path
) -> None:
    clip, dataset = tiny_clip(), captioned_dataset()
    assert main(words(dataset.path, clip, "guard_cosine=1", "guard_picture=1")) == 0
    inline = sidecars(dataset)
    (Path(dataset.path) / "sidecars").rename(tmp_path / "inline")
    assert main(words(dataset.path, clip, "guard_cosine=1", "guard_picture=1", "executor=ray", "workers=2")) == 0
    assert sidecars(dataset) == inline


def test_pools_are_written_as_a_column_and_as_files_that_can_be_read_again(
    captioned_dataset: MakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, given = captioned_dataset(), tmp_path / "given"
    given.mkdir()
    (given / "object.txt").write_text("dog\nboat\nzebra\n")
    made = ["negatives", "kind=pools", f"dataset={dataset.path}"]
    assert main([*made, f"files={given}", f"output={tmp_path / 'made'}"]) == 0
    annotations = [item for record in dataset.records(payload=False) for item in record.annotations]
    texts = {item.text for item in annotations if isinstance(item, Caption)}
    assert set((tmp_path / "made" / "all_captions.txt").read_text().splitlines()) == texts
    assert (tmp_path / "made" / "object.txt").read_text() == "dog\nboat\nzebra\n"
    column = open_sidecar(dataset, "pools")
    assert column.is_complete
    assert column.row(0, "made-000")["objects"] == ["dog"]
    assert column.row(0, "made-001")["objects"] == []
    before = sidecars(dataset)
    assert main([*made, f"files={tmp_path / 'made'}"]) == 0  # its own files again: the very same column
    assert sidecars(dataset) == before
    assert "3 objects" in capsys.readouterr().out


def test_an_option_of_another_kind_is_refused(
    captioned_dataset: MakeDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["negatives", "kind=pools", f"dataset={captioned_dataset().path}", "top_k=3"]) == 2
    assert "top_k has no meaning with kind=pools" in capsys.readouterr().err


def test_captions_with_words_exchanged_are_made_of_the_records_own(
    captioned_dataset: MakeDataset, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dataset = captioned_dataset()
    command = ["negatives", "kind=swaps", "phrases.tagger=rules", "min_seen=1"]
    assert main([*command, f"dataset={dataset.path}"]) == 0
    assert "replace_attribute" in capsys.readouterr().out
    column, made = open_sidecar(dataset, "swaps"), 0
    for shard in range(3):
        for record in dataset.records(shard, payload=False):
            row = column.row(shard, record.key)
            for text, number, kind in zip(row["captions"], row["annotations"], row["kinds"], strict=True):
                own = record.annotations[number]
                assert isinstance(own, Caption)
                assert text != own.text
                # Of this world's captions only skies differ in what excludes each other.
                assert kind == "replace_attribute"
                assert text.endswith(" sky.")
                made += 1
    assert made == 21
    before = sidecars(dataset)
    assert main([*command, f"dataset={dataset.path}"]) == 0
    assert sidecars(dataset) == before
    again = open_dataset(shutil.copytree(dataset.path, tmp_path / "again"))
    shutil.rmtree(tmp_path / "again" / "sidecars")
    assert main([*command, f"dataset={again.path}"]) == 0
    assert sidecars(again) == before


def test_an_approximate_search_prints_what_it_finds_of_the_exact_negatives_and_runs_once(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra `search`)")
    dataset, clip = captioned_dataset(), tiny_clip()
    asked = ("guard_cosine=1", "guard_picture=1", "search=approximate", "recall=0.9")
    assert main(words(dataset.path, clip, *asked)) == 0
    said = capsys.readouterr().out
    assert "21 mined now" in said
    recall = open_sidecar(dataset, "negatives").card["search"]["recall"]
    assert recall >= 0.9
    assert f"approximate search with recall {recall:.3f} over 21 pictures" in said
    before = sidecars(dataset)
    assert main(words(dataset.path, clip, *asked)) == 0
    assert "(0 mined now, 0 embedded now)" in capsys.readouterr().out
    assert sidecars(dataset) == before


def test_the_search_is_exact_until_there_are_too_many_pairs(
    captioned_dataset: MakeDataset,
    tiny_clip: MakeClip,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra `search`)")
    dataset, clip = captioned_dataset(shards=1), tiny_clip()
    assert main(words(dataset.path, clip)) == 0
    assert "exact search" in capsys.readouterr().out
    monkeypatch.setattr("jobs.verbs.negatives.EXACT_PAIRS", 7 * 21 - 1)
    assert main(words(dataset.path, clip)) == 0
    assert "approximate search" in capsys.readouterr().out
    assert main(words(dataset.path, clip, "search=exact", "recall=0.9")) == 2
    assert "recall has no meaning with search=exact" in capsys.readouterr().err
