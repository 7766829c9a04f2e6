"""The released ViCHA checkpoints' names against ours, for any depth, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from model.checkpoints import ImportReport, fill
from model.families.vicha.config import Config
from model.families.vicha.finetuned import Finetuned
from model.families.vicha.heads import AnswersHead, AssignHead, ClassesHead, CompareHead, DistilConfig
from model.families.vicha.model import Vicha
from model.families.vicha.released import EARLIER, canonical, stage_of
from model.objectives.masked_image import MaskedImageConfig
from model.positions import sincos_positions

Names = dict[str, tuple[str, ...]]  # ours: (released name, further released names of the same tied tensor…)

_VISION = {
    "attention_norm": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "mlp_norm": "norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
_ATTENTION = {"query": "self.query", "key": "self.key", "value": "self.value", "out": "output.dense"}
_TEXT = {
    **{f"attention.{ours}": f"attention.{theirs}" for ours, theirs in _ATTENTION.items()},
    "attention_norm": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
_CROSS = {
    **{f"cross_attention.{ours}": f"crossattention.{theirs}" for ours, theirs in _ATTENTION.items()},
    "cross_norm": "crossattention.output.LayerNorm",
}


def published_names(config: Config) -> Names:
    """Map each of our parameters and buffers to its released names.

    The first released name is the one under which the released model lists the parameter; the others are ties.
    """
    match config.head:
        case None:
            return _pair_names(config)
        case AnswersHead() as head:
            layers = head.layers or config.text.layers - config.text.fusion_layer
            return _both_sides(head.distil, lambda ours, suffix: _answerer(config, layers, ours, suffix))
        case ClassesHead() as head:
            return _both_sides(head.distil, lambda ours, suffix: _classifier(config, ours, suffix))
        case CompareHead() as head:
            return _both_sides(head.distil, lambda ours, suffix: _comparer(config, ours, suffix))
        case AssignHead():
            return _assigner(config)


def _pair_names(config: Config) -> Names:
    names: Names = {"temperature": ("temp",), **_linear("match", "itm_head")}
    for ours, suffix in (("student", ""), ("twin", "_m")):
        names |= _towers(config, ours, suffix)
    if config.hierarchy is not None:
        for place in range(config.hierarchy.layers):
            names |= _linear(f"hierarchy.image_projections.{place}", f"vision_proj_hidden.{place}")
            names |= _linear(f"hierarchy.text_projections.{place}", f"text_proj_hidden.{place}")
    if config.masked_image is not None:
        names |= _masked_image(config.masked_image)
    queue = {"images": "image_queue", "texts": "text_queue", "pointer": "queue_ptr"}
    if config.contrast.targets == "identity":
        queue["identities"] = "idx_queue"
    return names | {f"queue.{ours}": (theirs,) for ours, theirs in queue.items()}


def _both_sides(distil: DistilConfig | None, names: Callable[[str, str], Names]) -> Names:
    return names("student", "") | (names("twin", "_m") if distil is not None else {})


def _answerer(config: Config, layers: int, ours: str, suffix: str) -> Names:
    decoder = f"text_decoder{suffix}"
    names = _reader(config, ours, suffix, bert=f"text_encoder{suffix}")
    names |= _embedding(f"{ours}.decoder.embedding", f"{decoder}.bert.embeddings")
    for layer in range(layers):
        names |= _named(f"{ours}.decoder.layers.{layer}", f"{decoder}.bert.encoder.layer.{layer}", _TEXT | _CROSS)
    return names | _words(f"{ours}.decoder.words", f"{ours}.decoder.embedding", f"{decoder}.cls", names)


def _classifier(config: Config, ours: str, suffix: str) -> Names:
    names = _reader(config, ours, suffix, bert=f"text_encoder{suffix}")
    return names | _head(ours, suffix)


def _comparer(config: Config, ours: str, suffix: str) -> Names:
    names = _reader(config, ours, suffix, bert=f"text_encoder{suffix}", fusion_layers_each=2)
    return names | _head(ours, suffix)


def _assigner(config: Config) -> Names:
    names = _reader(config, "student", "", bert="text_encoder", fusion_layers_each=2)
    names |= _linear("student.image_projection", "vision_proj") | _linear("student.text_projection", "text_proj")
    return names | _linear("student.head", "ta_head") | {"student.temperature": ("temp",)}


def _head(ours: str, suffix: str) -> Names:
    return _linear(f"{ours}.head.hidden", f"cls_head{suffix}.0") | _linear(f"{ours}.head.out", f"cls_head{suffix}.2")


def import_published(family: Vicha | Finetuned[Any], tensors: Mapping[str, Tensor]) -> ImportReport:
    """Fill a task's model from a released file: its own, or one of the stage that it is fine-tuned from.

    From pretraining, a decoder of answers starts as the fusion layers, word embeddings and word head, and each fusion
    layer becomes both of a pair. Position tables of another image size are resized. Where a file brings no momentum twin
    (ALBEF's fine-tuned files do not), the twin starts as a copy of the student. What stays at its fresh value, and what
    of the file nothing took, is in the report; a further name of a tied tensor counts as taken with it.

    Raises:
        ValueError: the file is of no released model, or a tensor has another shape than the config says and is not a
            position table.
    """
    origins = starting_points(family, tensors)
    report = fill(family, {ours: tensors[name] for ours, name in origins.items()}, grids=family.position_grids())
    if family.twin is not None and not any(name.startswith("twin.") for name in report.loaded):
        family.twin.load_state_dict(family.student.state_dict())
    used = {canonical(name) for name in origins.values()}
    for tied in (*published_names(family.config).values(), *published_names(_pretraining_of(family.config)).values()):
        names = set(map(canonical, tied))
        if not used.isdisjoint(names):
            used |= names
    return ImportReport(
        loaded=report.loaded,
        missing=report.missing,
        unexpected=tuple(sorted(name for name in tensors if canonical(name) not in used and not _is_derived(name))),
        resized=report.resized,
        kept=report.kept,
    )


def starting_points(family: Vicha | Finetuned[Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name for each of a model's tensors the one of a released file that it starts from.

    Args:
        family: of the task; only names and shapes count, so it may lie on the meta device.
        tensors: of the task's own model or of an earlier stage; likewise.

    Returns:
        Released names, as the file spells them, by ours; what the file has nothing for is left out.
    """
    adopts = isinstance(family, Finetuned) and stage_of(tensors) in EARLIER
    names = published_names(_pretraining_of(family.config) if adopts else family.config)
    spelling = {canonical(name): name for name in tensors if not _is_derived(name)}
    found = {
        ours: spelling[canonical(name)]
        for ours, released in names.items()
        for name in reversed(released)  # the first of several names of a tied tensor comes last, and so wins
        if canonical(name) in spelling
    }
    if not isinstance(family, Finetuned) or not adopts:
        return found
    # `adopt` moves tensors between names; each is known again by being the same object.
    views = {ours: tensors[name].view_as(tensors[name]) for ours, name in found.items()}
    origins = {id(view): found[ours] for ours, view in views.items()}
    own = family.state_dict().keys()
    return {ours: origins[id(view)] for ours, view in family.adopt(views).items() if ours in own}


def export_published(family: Vicha | Finetuned[Any]) -> dict[str, Tensor]:
    """Give a family's tensors their released names, tied copies and computed tables included."""
    state = family.state_dict()
    config = family.config
    tensors = {name: state[ours].clone() for ours, released in published_names(config).items() for name in released}
    # (1, positions) counters that BERT files carry, one per word embedding; and the decoder's fixed table.
    count = torch.arange(config.text.max_positions)[None]
    words = ".embeddings.word_embeddings.weight"
    tensors |= {
        name.replace(words, ".embeddings.position_ids"): count.clone() for name in tensors if name.endswith(words)
    }
    if config.masked_image is not None and config.masked_image.decodes:
        grid = config.image_size // config.patch_size
        tensors["decoder_pos_embed"] = sincos_positions(config.masked_image.decoder_width, grid)[None]
    return tensors


def _towers(config: Config, ours: str, suffix: str) -> Names:
    text = f"text_encoder{suffix}"
    names = _reader(config, ours, suffix, bert=f"{text}.bert" if config.masked_text is not None else text)
    names |= _linear(f"{ours}.image_projection", f"vision_proj{suffix}")
    names |= _linear(f"{ours}.text_projection", f"text_proj{suffix}")
    if config.masked_text is not None:
        names |= _words(f"{ours}.words", f"{ours}.text.embedding", f"{text}.cls", names)
    return names


def _reader(config: Config, ours: str, suffix: str, *, bert: str, fusion_layers_each: int = 1) -> Names:
    """Name the towers of one side; each fusion layer of pretraining may have become several."""
    image, concept = f"visual_encoder{suffix}", f"kw_encoder{suffix}"
    names: Names = {
        f"{ours}.image.class_token": (f"{image}.cls_token",),
        f"{ours}.image.positions": (f"{image}.pos_embed",),
        **_linear(f"{ours}.image.patches", f"{image}.patch_embed.proj"),
        **_vision_layers(f"{ours}.image.layers", f"{image}.blocks", config.vision.depth),
        **_linear(f"{ours}.image.norm", f"{image}.norm"),
        **_embedding(f"{ours}.text.embedding", f"{bert}.embeddings"),
    }
    for layer in range(config.text.fusion_layer):
        names |= _named(f"{ours}.text.layers.{layer}", f"{bert}.encoder.layer.{layer}", _TEXT)
    for place in range((config.text.layers - config.text.fusion_layer) * fusion_layers_each):
        theirs = f"{bert}.encoder.layer.{config.text.fusion_layer + place}"
        names |= _named(f"{ours}.fusion.layers.{place}", theirs, _TEXT | _CROSS)
    if config.concepts is not None:
        names |= _embedding(f"{ours}.concepts.text.embedding", f"{concept}.embeddings")
        for layer in range(config.concepts.layers):
            names |= _named(f"{ours}.concepts.text.layers.{layer}", f"{concept}.encoder.layer.{layer}", _TEXT)
        names |= _linear(f"{ours}.concepts.project", f"kw_proj{suffix}")
    return names


def _words(ours: str, embedding: str, theirs: str, names: Names) -> Names:
    """Name a head that predicts words; its output matrix is a further name of the word embedding."""
    head = f"{theirs}.predictions"
    words = f"{embedding}.words.weight"
    return {
        **_linear(f"{ours}.dense", f"{head}.transform.dense"),
        **_linear(f"{ours}.norm", f"{head}.transform.LayerNorm"),
        f"{ours}.bias": (f"{head}.bias", f"{head}.decoder.bias"),
        words: (*names[words], f"{head}.decoder.weight"),
    }


def _masked_image(settings: MaskedImageConfig) -> Names:
    names: Names = {"masked_image.mask_token": ("mask_token",)}
    if settings.decodes:
        names |= _linear("masked_image.embed", "decoder_embed")
        names |= _vision_layers("masked_image.layers", "decoder_blocks", settings.decoder_layers)
        names |= _linear("masked_image.norm", "decoder_norm")
        # The plain name belongs to whoever is alone; of two, to the fusion tower.
        names |= _linear("masked_image.pixels", "mae_proj_uni" if settings.fuses else "mae_proj")
    if settings.fuses:
        names |= _linear("masked_image.fused_pixels", "mae_proj")
    return names


def _vision_layers(ours: str, theirs: str, count: int) -> Names:
    return {
        name: released
        for layer in range(count)
        for name, released in _named(f"{ours}.{layer}", f"{theirs}.{layer}", _VISION).items()
    }


def _embedding(ours: str, theirs: str) -> Names:
    return {
        f"{ours}.words.weight": (f"{theirs}.word_embeddings.weight",),
        f"{ours}.positions.weight": (f"{theirs}.position_embeddings.weight",),
        f"{ours}.types.weight": (f"{theirs}.token_type_embeddings.weight",),
        **_linear(f"{ours}.norm", f"{theirs}.LayerNorm"),
    }


def _named(ours: str, theirs: str, parts: Mapping[str, str]) -> Names:
    return {
        name: released
        for part, their_part in parts.items()
        for name, released in _linear(f"{ours}.{part}", f"{theirs}.{their_part}").items()
    }


def _linear(ours: str, theirs: str) -> Names:
    return {f"{ours}.{kind}": (f"{theirs}.{kind}",) for kind in ("weight", "bias")}


def _pretraining_of(config: Config) -> Config:
    """The pretraining from which a task's model is made, as far as that model has use for it."""
    shared = ("image_size", "patch_size", "border", "projection", "vision", "text", "cleaning", "concepts")
    return Config(**{name: getattr(config, name) for name in shared}, hierarchy=None, masked_image=None)


def _is_derived(name: str) -> bool:
    """Counters and the decoder's fixed table say nothing that the config does not."""
    return name.endswith("position_ids") or name == "decoder_pos_embed"
