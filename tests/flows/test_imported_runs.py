"""Released weights by the command line: import, evaluate, predict, export, import again; nothing changes on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.cli import DONE, main
from jobs.config import read_preset
from model.families.vicha import Config, build
from model.families.vicha.published import export_published
from model.families.vicha.released import infer_config
from model.tokenizer import train_wordpiece
from shards.reader import Dataset
from shards.records import Grounding
from tests.askable import annotated, captions, hypotheses, questions, statements

__all__ = ["annotated"]

SIZES: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 16,
    "projection": 8,
    "vision": {"width": 16, "depth": 3, "heads": 2},
    "text": {"width": 16, "layers": 4, "fusion_layer": 2, "heads": 2, "mlp_width": 24, "max_positions": 96},
    "concepts": {"layers": 1},
}
PAIRS = {
    "contrast": {"queue_size": 8, "targets": "identity", "temperature_range": None},
    "hierarchy": None,
    "masked_text": None,
    "masked_image": None,
}
PARTS: dict[str, dict[str, Any]] = {  # what a released file of each task is the model of
    "pretraining": {
        "contrast": {"queue_size": 8},
        "hierarchy": {"layers": 1},
        "masked_image": {"decoder_width": 16, "decoder_layers": 1},
    },
    "retrieval": PAIRS,
    "grounding": PAIRS,
    "vqa": {"head": {"kind": "answers"}},
    "entailment": {"head": {"kind": "classes"}},
    "nlvr2": {"head": {"kind": "compare"}},
}
HEADS = ("settings.vision.heads=2", "settings.text.heads=2")
OF_CONCEPTS = ("kw_", "module.kw_")

# Each published preset, and the task under which the released file of its run is imported.
PUBLISHED = {
    "vicha_1m": "pretraining",
    "vicha_4m": "pretraining",
    "vicha_retrieval_coco": "retrieval",
    "vicha_retrieval_flickr": "retrieval",
    "vicha_grounding": "grounding",
    "vicha_vqa": "vqa",
    "vicha_vqa_4m": "vqa",
    "vicha_entailment": "entailment",
    "vicha_entailment_4m": "entailment",
    "vicha_nlvr2": "nlvr2",
    "vicha_nlvr2_4m": "nlvr2",
    "vicha_text_assignment": "nlvr2_assignment",
    "vicha_text_assignment_4m": "nlvr2_assignment",
}


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    said = [" ".join((*words, each.type)) for pictures, asked in captions() for words in pictures for each in asked]
    said += ["it is red both have the same colour what shape is it belongs to somebody a disc"] * 2
    train_wordpiece(said, vocab_size=120, path=tmp_path / "vocab.txt")
    return tmp_path / "vocab.txt"


@pytest.fixture
def asked(annotated: Callable[..., Dataset], tmp_path: Path) -> Callable[[str], tuple[Dataset, tuple[str, ...]]]:
    """The dataset that a task is evaluated on, and what words the verbs need for it."""

    def make(task: str) -> tuple[Dataset, tuple[str, ...]]:
        if task == "vqa":
            (tmp_path / "answers.json").write_text(json.dumps(["red", "green", "disc", "square"]))
            return annotated(task, questions()), (f"task.answers={tmp_path / 'answers.json'}",)
        if task == "entailment":
            return annotated(task, hypotheses()), ()
        if task == "nlvr2":
            return annotated(task, statements()), ()
        if task == "grounding":
            box = (2.0, 2.0, 13.0, 13.0)
            return annotated(task, [(shown, [Grounding(text="a disc", box=box)]) for shown, _ in captions()]), ()
        return annotated(task, captions()), ()

    return make


def released(task: str, vocabulary: Path, *, of: str) -> dict[str, torch.Tensor]:
    """The tensors of a released file, with weights of our own: ViCHA's, or ALBEF's, without concepts and twin."""
    words = len(vocabulary.read_text().splitlines())
    sizes = SIZES | {"text": {**SIZES["text"], "vocab_size": words}, "initialisation": "xavier"}
    torch.manual_seed(7)
    family: Any = build(Config.model_validate(sizes | PARTS[task] | ({"concepts": None} if of == "albef" else {})))
    tensors: dict[str, torch.Tensor] = export_published(family)
    if of == "albef":
        tensors = {name: value for name, value in tensors.items() if "_m." not in name and "queue" not in name}
    return tensors


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("of", ["vicha", "albef"])
@pytest.mark.parametrize("task", list(PARTS))
def test_what_an_imported_run_predicts_survives_export_and_another_import(
    tmp_path: Path, vocabulary: Path, asked: Callable[[str], tuple[Dataset, tuple[str, ...]]], task: str, of: str
) -> None:
    tensors = released(task, vocabulary, of=of)
    # ViCHA's files hold the model under a key, some of ALBEF's fine-tuned ones are bare.
    torch.save(tensors if of == "albef" and task != "pretraining" else {"model": tensors}, tmp_path / "released.pth")
    data, words = asked(task)
    predicted, files = [], [tmp_path / "released.pth", tmp_path / "back.safetensors"]
    for number, file in enumerate(files):
        run, output = tmp_path / f"run{number}", tmp_path / f"out{number}"
        keys = [f"checkpoint={file}", f"tokenizer={vocabulary}", f"task={task}", f"output={run}"]
        assert main(["import", *keys, *HEADS, "settings.image_size=32"]) == DONE
        look = [f"checkpoint={run}", f"dataset={data.path}", "device=cpu", "k_test=4", *words]
        assert main(["predict", *look, f"output={output}"]) == DONE
        predicted.append(rows(output / "predictions.jsonl"))
        if number == 0:
            assert main(["evaluate", *look, f"output={tmp_path / 'scores'}"]) == DONE
            assert main(["export", f"checkpoint={run}", f"output={files[1]}"]) == DONE
    assert predicted[0] == predicted[1]
    assert (
        len({json.dumps(row["ranked"] or row["map"]) for row in predicted[0]}) > 1
    )  # pictures and texts make a difference
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["metrics"]


def test_a_model_that_reads_concepts_and_is_shown_none_is_told_of(
    tmp_path: Path,
    vocabulary: Path,
    asked: Callable[[str], tuple[Dataset, tuple[str, ...]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, _ = asked("retrieval")
    for of, told in (("vicha", True), ("albef", False)):
        torch.save(released("retrieval", vocabulary, of=of), tmp_path / f"{of}.pth")
        keys = [
            f"checkpoint={tmp_path / of}.pth",
            f"tokenizer={vocabulary}",
            "task=retrieval",
            f"output={tmp_path / of}",
        ]
        assert main(["import", *keys, *HEADS]) == DONE
        capsys.readouterr()
        look = [f"checkpoint={tmp_path / of}", f"dataset={data.path}", "text=a disc", "limit=2", "device=cpu"]
        assert main(["predict", *look]) == DONE
        assert ("none are shown" in capsys.readouterr().err) == told


@pytest.mark.parametrize("preset", list(PUBLISHED))
def test_a_released_file_becomes_the_model_that_its_preset_trains(preset: str) -> None:
    published = read_preset(preset, verb="train")["family"]
    small: dict[str, Any] = dict(published)
    for key, value in SIZES.items():
        small[key] = {**published.get(key, {}), **value} if isinstance(value, dict) else value
    small["text"] = {**small["text"], "vocab_size": 50, "max_positions": 512}
    small["image_size"] = published.get("image_size", 256)
    if small.get("head") is None and small.get("hierarchy", {}) is not None:
        small |= {"hierarchy": {"layers": 1}, "masked_image": {"decoder_width": 16, "decoder_layers": 1}}
    trained = Config.model_validate(small)
    family: Any = build(trained)
    file = export_published(family)
    imported = infer_config(file, task=PUBLISHED[preset], settings={"vision": {"heads": 2}, "text": {"heads": 2}})
    differ = {
        name: (ours, theirs) for (name, ours), (_, theirs) in zip(trained, imported, strict=True) if ours != theirs
    }
    # A file tells the depth of a head, layer weights of 1 and no width that its task does not use; the rest is the preset's.
    if trained.head is not None:
        differ.pop("projection", None)
    if trained.hierarchy is not None:
        differ.pop("hierarchy")
    if trained.head is not None and trained.head.kind == "answers":
        ours, theirs = differ.pop("head")
        assert ours.model_copy(update={"layers": theirs.layers}) == theirs
    assert not differ


def test_every_published_preset_is_compared() -> None:
    from jobs.config import preset_names

    assert {name for name in preset_names("train") if not name.startswith("vicha_small")} == set(PUBLISHED)
