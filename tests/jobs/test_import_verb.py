"""`import` and `export`: released layouts to a run folder and back, safely, with a report."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.cli import DONE, WRONG_USAGE, main
from model.families.vicha import Config, build
from model.families.vicha.published import export_published
from model.tokenizer import SPECIALS
from trainers.assembly import load_initial_weights, open_run

HEADS = ("settings.vision.heads=2", "settings.text.heads=2", "settings.image_size=16")


def tiny(**parts: Any) -> Config:
    """The family in tiny sizes; keywords replace parts."""
    sizes: dict[str, Any] = {
        "image_size": 16,
        "patch_size": 4,
        "projection": 8,
        "vision": {"width": 16, "depth": 3, "heads": 2, "mlp_ratio": 2},
        "text": {
            "vocab_size": 20,
            "width": 16,
            "layers": 4,
            "fusion_layer": 2,
            "heads": 2,
            "mlp_width": 24,
            "max_positions": 64,
        },
        "contrast": {"queue_size": 8},
        "hierarchy": {"layers": 2, "layer_weights": [1.0, 1.0]},
        "masked_image": {"decoder_width": 16, "decoder_layers": 1},
        "concepts": {"layers": 1},
    }
    return Config.model_validate(sizes | parts)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{word}\n" for word in (*SPECIALS, *(f"w{place}" for place in range(20 - len(SPECIALS))))))
    return path


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A pretraining file as it is released: an old pickle with optimiser state and arguments beside the model."""
    torch.manual_seed(0)
    family: Any = build(tiny())
    content = {
        "model": export_published(family),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]},
        "config": {"image_res": 16},
        "args": argparse.Namespace(seed=42),
        "epoch": 3,
    }
    torch.save(content, tmp_path / "released.pth", _use_new_zipfile_serialization=False)
    return tmp_path / "released.pth"


def imported(source: Path, output: Path, vocabulary: Path, *words: str) -> int:
    return main(["import", f"checkpoint={source}", f"output={output}", f"tokenizer={vocabulary}", *words])


TASKS = ("pretraining", "retrieval", "grounding", "vqa", "entailment", "nlvr2", "nlvr2_assignment")


@pytest.mark.parametrize("task", TASKS)
def test_a_pretraining_file_becomes_each_tasks_model_and_goes_back_to_its_layout(
    tmp_path: Path, pretrained: Path, vocabulary: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(pretrained, tmp_path / "run", vocabulary, f"task={task}", *HEADS) == DONE
    assert "tensors loaded" in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "import.json").read_text())
    opened = open_run(tmp_path / "run", device=torch.device("cpu"))
    assert set(report["loaded"]) | set(report["missing"]) | set(report["kept"]) == opened.family.state_dict().keys()
    if task == "pretraining":
        assert not report["missing"] + report["unexpected"]
    # Back to the released layout, and in again: nothing is missing, nothing is left over, nothing changes.
    assert main(["export", f"checkpoint={tmp_path / 'run'}", f"output={tmp_path / 'back.pth'}"]) == DONE
    assert imported(tmp_path / "back.pth", tmp_path / "again", vocabulary, f"task={task}", *HEADS) == DONE
    second = json.loads((tmp_path / "again" / "import.json").read_text())
    assert not second["missing"] + second["unexpected"] + second["resized"] + second["kept"]
    again = open_run(tmp_path / "again", device=torch.device("cpu")).family.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in opened.family.state_dict().items())


def test_another_picture_size_is_resized_and_said(
    tmp_path: Path, pretrained: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*HEADS[:2], "task=retrieval", "settings.image_size=24")
    assert imported(pretrained, tmp_path / "run", vocabulary, *words) == DONE
    assert "2 resized: student.image.positions, twin.image.positions" in capsys.readouterr().out
    assert open_run(tmp_path / "run", device=torch.device("cpu")).config.family["image_size"] == 24


def test_an_imported_run_can_start_another(tmp_path: Path, pretrained: Path, vocabulary: Path) -> None:
    assert imported(pretrained, tmp_path / "run", vocabulary, *HEADS) == DONE
    family = build(tiny())
    report = load_initial_weights(family, str(tmp_path / "run"))
    assert not report.missing + report.unexpected
    # In the file, `temp` and the picture tower's class token are what the family holds now.
    stored = torch.load(pretrained, weights_only=False)["model"]
    assert torch.equal(family.state_dict()["student.image.class_token"], stored["visual_encoder.cls_token"])


def test_albefs_file_without_concepts_and_twin_makes_a_model_without_concepts(
    tmp_path: Path, pretrained: Path, vocabulary: Path
) -> None:
    stored = torch.load(pretrained, weights_only=False)["model"]
    gone = ("kw_", "vision_proj_hidden", "text_proj_hidden", "mask_token", "mae_proj", "decoder_")
    bare = {name: value for name, value in stored.items() if not name.startswith(gone) and "_m." not in name}
    torch.save(bare, tmp_path / "albef.pth")  # no `model` key either
    assert imported(tmp_path / "albef.pth", tmp_path / "run", vocabulary, "task=retrieval", *HEADS) == DONE
    opened: Any = open_run(tmp_path / "run", device=torch.device("cpu"))
    assert opened.config.family["concepts"] is None
    pairs = zip(opened.family.twin.parameters(), opened.family.student.parameters(), strict=True)
    assert all(torch.equal(twin, student) for twin, student in pairs)


class Malicious:
    """Pickled, it is a call: what a safe loader must not make."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path(pickle.__name__),)  # type: ignore[return-value]


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.zeros(1)}, "config": Malicious()}, tmp_path / "bad.pth")
    assert imported(tmp_path / "bad.pth", tmp_path / "run", vocabulary) == WRONG_USAGE
    assert "cannot be read as tensors alone" in capsys.readouterr().err
    assert not (tmp_path / pickle.__name__).exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        (("task=captioning",), "task='captioning' is none of the released tasks"),
        (("family=vichaa",), "did you mean 'vicha'"),
        (("vision=deit.pth",), "give checkpoint="),
        (("settings.image_sise=16",), "unknown key 'settings.image_sise': did you mean 'image_size'"),
        (("settings.text.width=32",), "has shape"),
    ],
)
def test_a_wrong_key_is_told_in_a_sentence(
    tmp_path: Path,
    pretrained: Path,
    vocabulary: Path,
    wrong: tuple[tuple[str, ...], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, said = wrong
    assert imported(pretrained, tmp_path / "run", vocabulary, *HEADS, *words) == WRONG_USAGE
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_file_of_something_else_and_a_vocabulary_of_another_size_are_refused(
    tmp_path: Path, pretrained: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    assert imported(tmp_path / "other.pth", tmp_path / "run", vocabulary) == WRONG_USAGE
    assert "every released model of ViCHA and ALBEF has" in capsys.readouterr().err
    vocabulary.write_text(vocabulary.read_text() + "more\n")
    assert imported(pretrained, tmp_path / "run", vocabulary, *HEADS) == WRONG_USAGE
    assert "name the vocabulary that its weights were trained with" in capsys.readouterr().err


def test_a_dry_run_shows_the_model_and_writes_nothing(
    tmp_path: Path, pretrained: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(pretrained, tmp_path / "run", vocabulary, "task=vqa", *HEADS, "--dry-run") == DONE
    assert '"kind": "answers"' in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written_is_told_in_a_sentence(
    tmp_path: Path, pretrained: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert imported(pretrained, tmp_path / "file", vocabulary, *HEADS) == WRONG_USAGE
    assert imported(pretrained, tmp_path / "run", vocabulary, *HEADS) == DONE
    said = [f"output={tmp_path / 'file' / 'back.pth'}", f"checkpoint={tmp_path / 'run'}"]
    assert main(["export", *said]) == WRONG_USAGE
    assert capsys.readouterr().err.count("cannot be written") == 2


def test_a_run_is_never_written_over(
    tmp_path: Path, pretrained: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(pretrained, tmp_path / "run", vocabulary, *HEADS) == DONE
    assert imported(pretrained, tmp_path / "run", vocabulary, *HEADS) == WRONG_USAGE
    assert "holds checkpoints already" in capsys.readouterr().err


def test_pretraining_starts_from_a_picture_tower_and_a_bert(
    tmp_path: Path, pretrained: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = torch.load(pretrained, weights_only=False)["model"]
    side, cross = "visual_encoder.", ".crossattention."
    deit = {name.removeprefix(side): value for name, value in stored.items() if name.startswith(side)}
    torch.save({"model": deit | {"head.weight": torch.zeros(4, 16)}}, tmp_path / "deit.pth")
    bert = {
        name.removeprefix("text_encoder.").replace("LayerNorm.weight", "LayerNorm.gamma"): value
        for name, value in stored.items()
        if name.startswith("text_encoder.") and cross not in name
    }
    torch.save(bert | {"bert.pooler.dense.weight": torch.zeros(16, 16)}, tmp_path / "bert.bin")
    words = [f"vision={tmp_path / 'deit.pth'}", f"text={tmp_path / 'bert.bin'}", f"tokenizer={vocabulary}", *HEADS]
    words += ["settings.hierarchy.layers=2", "settings.hierarchy.layer_weights=[1.0, 1.0]"]
    assert main(["import", f"output={tmp_path / 'run'}", *words]) == DONE
    report = json.loads((tmp_path / "run" / "import.json").read_text())
    assert not report["unexpected"]
    opened: Any = open_run(tmp_path / "run", device=torch.device("cpu"))
    student = opened.family.student
    embedding = stored["text_encoder.bert.embeddings.word_embeddings.weight"]
    assert torch.equal(student.text.embedding.words.weight, embedding)
    assert torch.equal(student.concepts.text.embedding.words.weight, embedding)
    norm = stored["text_encoder.bert.encoder.layer.3.output.LayerNorm.weight"]
    assert torch.equal(student.fusion.layers[1].mlp_norm.weight, norm)
    assert any("cross_attention" in name for name in report["missing"])
    assert torch.equal(opened.family.twin.text.embedding.words.weight, embedding)


def test_checkpoints_of_one_model_are_averaged_by_weight(
    tmp_path: Path, pretrained: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    other: Any = build(tiny())
    torch.save({"model": export_published(other)}, tmp_path / "other.pth")
    assert imported(pretrained, tmp_path / "one", vocabulary, *HEADS) == DONE
    assert imported(tmp_path / "other.pth", tmp_path / "two", vocabulary, *HEADS) == DONE
    runs = f"checkpoints=[{tmp_path / 'one'},{tmp_path / 'two'}]"
    assert main(["average", runs, "weights=[0.75,0.25]", f"output={tmp_path / 'mean'}"]) == DONE
    one, two, mean = (
        open_run(tmp_path / name, device=torch.device("cpu")).family.state_dict() for name in ("one", "two", "mean")
    )
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * one[name] + 0.25 * two[name])
    assert main(["average", runs, "weights=[0.75,0.75]", f"output={tmp_path / 'wrong'}"]) == WRONG_USAGE
    assert "adding up to 1" in capsys.readouterr().err


def test_checkpoints_of_another_model_or_vocabulary_are_not_averaged(
    tmp_path: Path, pretrained: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(pretrained, tmp_path / "one", vocabulary, *HEADS) == DONE
    assert imported(pretrained, tmp_path / "pairs", vocabulary, "task=retrieval", *HEADS) == DONE
    vocabulary.write_text(vocabulary.read_text().replace("w3\n", "word\n"))
    assert imported(pretrained, tmp_path / "words", vocabulary, *HEADS) == DONE
    capsys.readouterr()
    for name, said in (("pairs", "configured otherwise"), ("words", "has another vocabulary")):
        runs = f"checkpoints=[{tmp_path / 'one'},{tmp_path / name}]"
        assert main(["average", runs, f"output={tmp_path / 'mean'}"]) == WRONG_USAGE
        assert said in capsys.readouterr().err
