from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from concepts.annotate import ConceptAnnotator
from concepts.picture_column import pictures_of
from jobs.cli import main
from jobs.config import load_config
from jobs.verbs import concepts
from shards.errors import ConfigError
from shards.reader import Dataset, open_dataset
from shards.sidecar import open_sidecar
from tests.concepts.worlds import captioned_dataset, tiny_clip

__all__ = ["captioned_dataset", "tiny_clip"]

MakeDataset = Callable[..., Dataset]
MakeClip = Callable[..., dict[str, Any]]


def words(dataset: str, clip: dict[str, Any], *more: str) -> list[str]:
    return [
        "concepts",
        f"dataset={dataset}",
        f"embedder.model={clip['model']}",
        f"embedder.pretrained={clip['pretrained']}",
        "phrases.tagger=rules",
        *more,
    ]


def sidecars(dataset: Dataset) -> dict[str, bytes]:
    root = Path(dataset.path) / "sidecars"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_one_command_goes_from_captions_to_concepts(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = captioned_dataset()
    assert main(words(dataset.path, tiny_clip(), f"output={tmp_path / 'out'}", "top_k=4", "batch_size=3")) == 0
    printed = capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert f"{summary['column']}: 21 pictures (21 embedded now), {summary['vocabulary']} concepts" in printed
    assert "tagger rules-" in printed
    sidecar = open_sidecar(dataset, summary["column"])
    assert sidecar.is_complete
    known = {phrase for phrase, _ in json.loads((tmp_path / "out" / "vocabulary.json").read_text())["phrases"]}
    assert {"dog", "house", "boat", "tree", "ball", "grass", "water", "sky"} == known
    for record in dataset.records(1, payload=False):
        row = sidecar.row(1, record.key)
        assert len(set(row["phrases"])) == 4
        assert set(row["phrases"]) <= known
        assert row["scores"] == sorted(row["scores"], reverse=True)


def test_a_run_that_was_cut_off_goes_on_and_ends_in_the_same_bytes(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, clip = captioned_dataset(), tiny_clip()
    cut = open_dataset(shutil.copytree(whole.path, tmp_path / "cut"))
    assert main(words(whole.path, clip)) == 0
    embed, embedded = ConceptAnnotator._embed, []

    def interrupted_at_the_third(self: ConceptAnnotator, dataset: Dataset, shard: int) -> Any:
        embedded.append(shard)
        if len(embedded) == 3:
            raise KeyboardInterrupt
        return embed(self, dataset, shard)

    monkeypatch.setattr(ConceptAnnotator, "_embed", interrupted_at_the_third)
    assert main(words(cut.path, clip)) == 130
    assert main(words(cut.path, clip)) == 0
    assert embedded == [0, 1, 2, 2]
    assert sidecars(cut) == sidecars(whole)


def test_running_the_same_command_again_embeds_nothing_and_changes_nothing(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    assert main(words(dataset.path, clip)) == 0
    before = sidecars(dataset)
    capsys.readouterr()
    assert main(words(dataset.path, clip)) == 0
    assert "(0 embedded now)" in capsys.readouterr().out
    assert sidecars(dataset) == before


def test_a_vocabulary_counted_elsewhere_and_reused_gives_the_same_concepts(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, tmp_path: Path
) -> None:
    train, test = captioned_dataset("train"), captioned_dataset("test", shards=1, first=30)
    clip = tiny_clip()
    both = json.dumps([train.path, test.path])
    assert main(words(both, clip, f"vocabulary.from=[{train.path}]", f"output={tmp_path / 'out'}")) == 0
    before = sidecars(test)
    assert not any(name.startswith("nouns") for name in before)  # nothing of the test split was counted
    assert main(words(test.path, clip, f"vocabulary.file={tmp_path / 'out' / 'vocabulary.json'}")) == 0
    assert sidecars(test) == before


def test_loose_captions_are_counted_into_the_vocabulary_once(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, tmp_path: Path
) -> None:
    dataset = captioned_dataset()
    (tmp_path / "more.txt").write_text("A giraffe eats.\nOne giraffe and a dog.\n")
    more = (f"vocabulary.texts=[{tmp_path / 'more.txt'}]", f"output={tmp_path / 'out'}", "min_count=2")
    assert main(words(dataset.path, tiny_clip(), *more)) == 0
    counts = dict(json.loads((tmp_path / "out" / "vocabulary.json").read_text())["phrases"])
    assert counts["giraffe"] == 2
    assert counts["dog"] == 2 * 5 + 1  # five pictures, a singular and a plural each
    (kept,) = (Path(dataset.path) / "sidecars").glob("nouns-*/texts/*.json")
    assert json.loads(kept.read_bytes()) == [["giraffe", 2], ["dog", 1]]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = captioned_dataset()
    assert main([*words(dataset.path, tiny_clip()), "--dry-run"]) == 0
    assert "21 pictures in 3 shards of 1 dataset; vocabulary counted over 63 annotations" in capsys.readouterr().out
    assert not (Path(dataset.path) / "sidecars").exists()


def test_a_wrong_model_stops_before_anything_is_counted(captioned_dataset: MakeDataset, tiny_clip: MakeClip) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    assert main(words(dataset.path, {**clip, "pretrained": "nowhere.pt"})) == 2
    assert not (Path(dataset.path) / "sidecars").exists()


def test_short_spellings_land_where_they_belong_and_clash_when_given_twice() -> None:
    config = load_config(concepts.Config, None, ["dataset=d", "min_count=7", "batch_size=5"], verb="concepts")
    assert (config.vocabulary.min_count, config.embedder.batch_size, config.dataset) == (7, 5, ("d",))
    with pytest.raises(ConfigError, match=r"min_count is short for vocabulary\.min_count"):
        load_config(concepts.Config, None, ["dataset=d", "min_count=7", "vocabulary.min_count=3"], verb="concepts")


def test_pictures_that_cannot_be_decoded_are_counted_against_a_budget_that_a_rerun_remembers(
    captioned_dataset: MakeDataset,
    tiny_clip: MakeClip,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    monkeypatch.setattr(
        "concepts.picture_column.pictures_of",
        lambda record, where: (b"",) if record.key in ("made-002", "made-009") else pictures_of(record, where=where),
    )
    strict = words(dataset.path, clip, "reject_count=1", "reject_share=0.01")
    assert main(strict) == 1
    assert "2 of 21 pictures cannot be embedded" in capsys.readouterr().err
    assert main(strict) == 1  # although both shards are done by now
    capsys.readouterr()
    assert main(words(dataset.path, clip)) == 0
    assert "2 without embedding" in capsys.readouterr().out


def test_names_of_lists_and_several_vocabularies_join(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, tmp_path: Path
) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    (tmp_path / "names.txt").write_text("zebra\ndog\n")
    (tmp_path / "more.txt").write_text("giraffe\n")
    lists = f"vocabulary.lists=[{tmp_path / 'names.txt'}]"
    assert main(words(dataset.path, clip, lists, f"output={tmp_path / 'one'}")) == 0
    one = dict(json.loads((tmp_path / "one" / "vocabulary.json").read_text())["phrases"])
    assert one["zebra"] == 0
    assert one["dog"] > 0
    alone = (f"vocabulary.lists=[{tmp_path / 'more.txt'}]", "vocabulary.count=false", f"output={tmp_path / 'two'}")
    assert main(words(dataset.path, clip, *alone)) == 0
    files = [str(tmp_path / name / "vocabulary.json") for name in ("one", "two")]
    merge = (f"vocabulary.file={json.dumps(files)}", "min_count=0", f"output={tmp_path / 'both'}")
    assert main(words(dataset.path, clip, *merge)) == 0
    both = dict(json.loads((tmp_path / "both" / "vocabulary.json").read_text())["phrases"])
    assert both == {**one, "giraffe": 0}


def test_variety_and_a_threshold_make_another_column_from_the_same_embeddings(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    assert main(words(dataset.path, clip, "top_k=4")) == 0
    capsys.readouterr()
    more = ("max_likeness=0.2", "min_score=0.0", "top_k=4", f"output={tmp_path}")
    assert main(words(dataset.path, clip, *more)) == 0
    assert "(0 embedded now)" in capsys.readouterr().out
    chosen = open_sidecar(dataset, json.loads((tmp_path / "summary.json").read_text())["column"])
    for record in dataset.records(0, payload=False):
        assert all(score >= 0 for score in chosen.row(0, record.key)["scores"])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_writes_the_same_bytes_as_one_process(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, tmp_path: Path
) -> None:
    clip = tiny_clip()
    dataset = captioned_dataset()
    assert main(words(dataset.path, clip)) == 0
    inline = sidecars(dataset)
    (Path(dataset.path) / "sidecars").rename(tmp_path / "inline")
    assert main(words(dataset.path, clip, "executor=ray", "workers=2")) == 0
    assert sidecars(dataset) == inline


WRONG = {
    "output={file}": "cannot write to",
    "phrases.kinds=[]": "at least 1",
    "vocabulary.count=false": "leaves no concept at all; name files of them by lists",
    "embedder.model={file}": "is broken JSON",
    "embedder.pretrained={file}": "it is no weights file, or holds more than tensors",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_work_is_told_in_a_sentence_before_anything_is_counted(
    captioned_dataset: MakeDataset, tiny_clip: MakeClip, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    dataset, file = captioned_dataset(), tmp_path / "file.json"
    file.write_text("no JSON, no weights, no folder")
    assert main(words(dataset.path, tiny_clip(), wrong.format(file=file))) != 0
    assert WRONG[wrong] in capsys.readouterr().err
    assert not sidecars(dataset)
