"""Finds the golden cases, says which kind each is by what it holds, and builds families and batches from them.

A test says `@pytest.mark.golden("vicha/retrieval")` and takes `case`: it then runs once per case of that kind, with the
case's folder in its id. Kinds are told by contents, never by folder names or numbers, so that other cases of the same
kind under other names are picked up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.families.vicha import Config
from model.families.vicha import build as build_vicha
from model.families.vicha.batch import PairBatch
from model.families.vicha.model import Vicha
from model.families.vicha.published import export_published, import_published, published_names

HERE = Path(__file__).parent
COMMITTED = HERE / "cases"
SHARED = HERE.parent.parent.parent / "shared" / "golden"


def golden_root() -> Path:
    """Where cases lie: $OSTRAKA_GOLDEN, else ../shared/golden beside the checkout, else the committed selection."""
    named = os.environ.get("OSTRAKA_GOLDEN")
    return Path(named) if named else SHARED if SHARED.is_dir() else COMMITTED


@dataclass(frozen=True)
class Case:
    """One folder with inputs and the numbers that the published code made of them."""

    path: Path
    name: str  # relative to the root, e.g. "vicha/retrieval"

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.json("config.json") if (self.path / "config.json").is_file() else {}

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self._tensors("inputs.safetensors")

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        return self._tensors("expected.safetensors")

    def json(self, file: str) -> Any:
        return json.loads((self.path / file).read_text(encoding="utf-8"))

    def sibling(self, name: str) -> Case:
        """Another case of the same folder, by its folder's name."""
        return Case(self.path.parent / name, f"{self.name.rpartition('/')[0]}/{name}")

    def weights(self) -> dict[str, Tensor]:
        """The case's weights, or those of the sibling that its config names."""
        owner = self
        if not (self.path / "weights.safetensors").is_file():
            owner = self.sibling(self.config["weights_case"])
        return owner._tensors("weights.safetensors")

    def has(self, *files: str) -> bool:
        return all((self.path / file).is_file() for file in files)

    def _tensors(self, file: str) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(self.path / file) if (self.path / file).is_file() else {}

    def expects(self, *keys: str) -> bool:
        """Whether `expected.json` holds these keys."""
        found = self.json("expected.json") if self.has("expected.json") else None
        return isinstance(found, dict) and all(key in found for key in keys)


def _is_pretraining(case: Case) -> bool:
    return {"mlm_labels", "mim_noise", "itm_neg_image_idx", "image_queue"} <= case.inputs.keys()


def _first(case: Case, key: str) -> Any:
    """The first entry of a list in `expected.json`; empty where there is none."""
    return (case.json("expected.json")[key] or [{}])[0] if case.expects(key) else {}


def _lists(case: Case, key: str) -> bool:
    """Whether `expected.json` is a list of objects with this key."""
    found = case.json("expected.json")
    return isinstance(found, list) and bool(found) and isinstance(found[0], dict) and key in found[0]


def _labels_one_picture(case: Case) -> bool:
    return {"targets", "image"} <= case.inputs.keys() and "labels" in case.config


KINDS: dict[str, Callable[[Case], bool]] = {
    "vicha/pretrain": _is_pretraining,
    "vicha/pretrain_three_steps": lambda case: "config_case" in case.config and "step0.mlm_labels" in case.inputs,
    "vicha/pretrain_two_ranks": lambda case: "config_case" in case.config and "rank1.mlm_labels" in case.inputs,
    "vicha/retrieval": lambda case: {"train.idx_queue", "eval.text_input_ids"} <= case.inputs.keys(),
    "vicha/grounding": lambda case: {"block_num_itm", "block_num_itc"} <= case.config.keys(),
    "vicha/vqa": lambda case: {"candidate_input_ids", "answers_per_question"} <= case.inputs.keys(),
    "vicha/entailment": _labels_one_picture,
    "vicha/nlvr2": lambda case: {"targets", "image_pair"} <= case.inputs.keys(),
    "vicha/text_assignment": lambda case: "image_pair_idx" in case.inputs,
    "vicha/checkpoint_mapping": lambda case: case.expects("source", "tasks"),
    "vicha/dataset_samples": lambda case: case.expects("retrieval_eval", "vqa_train", "nlvr2"),
    "vicha/visual_concepts": lambda case: case.expects("noun_heads", "concept_embeddings"),
    "vicha/pos_embed": lambda case: "interpolations" in case.config,
    "vicha/lr_schedule": lambda case: "steps_per_epoch" in _first(case, "schedules"),
    "vicha/optimizer_groups": lambda case: case.expects("groups", "model_case"),
    "vicha/text_cleaning": lambda case: case.expects("pre_caption"),
    "vicha/tokenizer": lambda case: case.has("vocab.txt") and case.expects("rows", "pair"),
    "vicha/randaugment": lambda case: "apply_probability" in case.config and "image_zero_min" in case.inputs,
    "epalm/video_frame_sampling": lambda case: case.has("expected.json") and _lists(case, "interval_starts"),
    "epalm/audio_features": lambda case: {"norm_mean", "norm_std", "cases"} <= case.config.keys(),
    "metrics/captions": lambda case: case.has("references.json", "predictions.json"),
    "metrics/vqa_accuracy": lambda case: (
        case.has("annotations.json", "predictions.json") and case.expects("official_v2")
    ),
    "metrics/grounding_iou": lambda case: case.has("boxes.json") and case.expects("per_box"),
    "metrics/retrieval": lambda case: case.has("ids.json") and "similarity_image_by_text" in case.inputs,
}


def find_cases(root: Path) -> list[Case]:
    """List every case folder below a root: the topmost folders that hold more than descriptions."""
    holding = {path.parent for path in root.rglob("*") if path.is_file() and path.suffix != ".md"}
    folders = sorted(folder for folder in holding if not holding & set(folder.parents))
    return [Case(folder, folder.relative_to(root).as_posix()) for folder in folders]


def kind_of(case: Case) -> str | None:
    """The kind that a case is told to be by its contents, or `None` where no test knows it."""
    return next((kind for kind, holds in KINDS.items() if holds(case)), None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(kind): runs once per golden case of this kind")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is not None:
        cases = [case for case in find_cases(golden_root()) if kind_of(case) == marker.args[0]]
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture
def golden_cases() -> list[Case]:
    """Every case there is."""
    return find_cases(golden_root())


def vicha_config(published: Mapping[str, Any], **parts: Any) -> Config:
    """Translate a case's `config.json` to our config; keywords replace parts."""
    vit, bert, mim, hierarchy = (published.get(key) or {} for key in ("vit", "bert", "mim", "hierarchical"))
    pretraining = "mlm_probability" in published
    keywords = published.get("keyword_encoder")
    positions = bert["max_position_embeddings"]
    data: dict[str, Any] = {
        "image_size": vit["img_size"],
        "border": "ignore",  # as released
        "patch_size": vit["patch_size"],
        "projection": published["embed_dim"],
        "vision": {
            "width": vit["width"],
            "depth": vit["depth"],
            "heads": vit["heads"],
            "mlp_ratio": vit["mlp_ratio"],
            "norm_eps": vit["layer_norm_eps"],
        },
        "text": {
            "vocab_size": bert["vocab_size"],
            "width": bert["hidden_size"],
            "layers": bert["num_hidden_layers"],
            "fusion_layer": bert["fusion_layer"],
            "heads": bert["num_attention_heads"],
            "mlp_width": bert["intermediate_size"],
            "max_positions": positions,
            "token_types": bert["type_vocab_size"],
            "dropout": bert["hidden_dropout_prob"],
            "norm_eps": bert["layer_norm_eps"],
        },
        "cleaning": {"max_tokens": min(25, positions)},
        "contrast": {
            "temperature": published["temp"],
            "momentum": published["momentum"],
            "queue_size": published["queue_size"],
            "alpha": published["alpha"],
            # The published fine-tuning compares identities and does not clamp.
            **({} if pretraining else {"targets": "identity", "temperature_range": None}),
        }
        if "queue_size" in published
        else {},
        "masked_text": {"probability": published["mlm_probability"]} if pretraining else None,
        "hierarchy": {
            "weight": hierarchy["weight"],
            "layers": hierarchy["num_hidden_align"],
            "layer_weights": hierarchy["layer_weights"],
        }
        if hierarchy
        else None,
        "masked_image": {
            # The published concept model ignores the weight.
            "weight": 1.0 if keywords else mim["loss_weight"],
            "mode": mim["mode"],
            "mask_ratio": mim["mask_ratio"],
            "normalise_pixels": mim["norm_pix_loss"],
            # A mode without a decoder states no sizes of one.
            **{
                ours: mim[theirs]
                for ours, theirs in {
                    "decoder_width": "decoder_dim",
                    "decoder_layers": "decoder_depth",
                    "decoder_heads": "decoder_heads",
                }.items()
                if mim[theirs] is not None
            },
        }
        if mim
        else None,
        "concepts": {"layers": keywords["num_hidden_layers"], "max_tokens": min(55, positions)} if keywords else None,
    }
    return Config.model_validate(data | parts)


@pytest.fixture
def tuned_family() -> Callable[..., Any]:
    """Build the fine-tuned model of a case with the case's weights, with or without concepts.

    Returns a function of the case and of our `head`; it checks that nothing but concepts is left over.
    """

    def build(case: Case, head: Mapping[str, Any], *, concepts: bool) -> Any:
        config = vicha_config(case.config, head=dict(head), **({} if concepts else {"concepts": None}))
        family: Any = build_vicha(config)
        report = import_published(family, case.weights())
        assert not report.missing
        assert not report.resized
        assert all(name.startswith("kw_") for name in report.unexpected), report.unexpected
        assert bool(report.unexpected) is not concepts
        family.train()
        return family

    return build


@pytest.fixture
def concepts_of() -> Callable[..., dict[str, Tensor]]:
    """The concepts of a case as fields of a batch; a mask that a case leaves out is "id is not padding"."""

    def build(inputs: Mapping[str, Tensor], theirs: str, ours: str = "concept") -> dict[str, Tensor]:
        ids = inputs[f"{theirs}_input_ids"]
        mask = inputs.get(f"{theirs}_attention_mask", ids != 0)
        return {f"{ours}_ids": ids, f"{ours}_mask": mask.bool()}

    return build


@pytest.fixture
def same_gradients() -> Callable[..., None]:
    """Compare every gradient's norm with a case's file, by released names."""

    def compare(family: Any, norms: Mapping[str, float]) -> None:
        released = published_names(family.config)
        found = {released[name][0]: value.grad for name, value in family.named_parameters() if value.grad is not None}
        trainable = {released[name][0] for name, value in family.named_parameters() if value.requires_grad}
        assert found.keys() == trainable == norms.keys()
        for name, norm in norms.items():
            assert found[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), name

    return compare


@pytest.fixture
def same_state(close: Callable[..., None]) -> Callable[..., None]:
    """Compare what a case holds of the twin after a step, which it must for the variant with concepts."""

    def compare(case: Case, family: Any) -> None:
        if family.config.concepts is None:
            return  # what a case stores is the state after its step with concepts
        state, checked = export_published(family), 0
        for name, expected in case.expected.items():
            kind, _, published = name.partition(".")
            if kind == "momentum_after":
                close(state[published], expected, name, atol=1e-6)
                checked += 1
        assert checked

    return compare


@pytest.fixture
def vicha_family() -> Callable[..., Vicha]:
    """Build the family of a case's `config.json` with fresh weights; keywords replace parts of our config."""

    def build(published: Mapping[str, Any], **parts: Any) -> Vicha:
        return Vicha(vicha_config(published, **parts))

    return build


@pytest.fixture
def pair_batch() -> Callable[..., PairBatch]:
    """Build a batch of a case's tensors; masks that a case leaves out are "id is not padding"."""

    def build(inputs: Mapping[str, Tensor], prefix: str = "", *, concepts: bool = True) -> PairBatch:
        given = {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}
        text, words = given["text_input_ids"], given.get("kw_input_ids") if concepts else None
        labels = given.get("mlm_labels")
        places = None if labels is None else (labels.flatten() >= 0).nonzero().squeeze(1)
        return PairBatch(
            keys=tuple(str(place) for place in range(len(text))),
            pixels=given["image"],
            text_ids=text,
            text_mask=given.get("text_attention_mask", text != 0).bool(),
            identity=given["idx"].flatten() if "idx" in given else torch.full((len(text),), -1),
            concept_ids=words,
            concept_mask=None if words is None else given.get("kw_attention_mask", words != 0).bool(),
            masked_ids=given.get("mlm_input_ids"),
            masked_positions=places,
            masked_targets=None if labels is None or places is None else labels.flatten()[places],
            patch_noise=given.get("mim_noise"),
            image_negatives=given.get("itm_neg_image_idx"),
            text_negatives=given.get("itm_neg_text_idx"),
            assigned=given.get("assigned"),
            assigned_labels=given.get("assigned_labels"),
        )

    return build


@pytest.fixture
def close() -> Callable[..., None]:
    """Compare within the tolerance that the cases state for features and logits, or losses."""

    def compare(found: Tensor, expected: Tensor, name: str, *, atol: float = 1e-5) -> None:
        # A logit near zero among large ones is a difference of large terms: a replay in double precision is as far from
        # the reference as single precision is, by up to this much.
        atol = max(atol, 5e-6 * expected.abs().max().item()) if expected.ndim > 1 else atol
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=atol, msg=lambda text: f"{name}: {text}")

    return compare
