"""Where the published pretraining starts: a picture tower from DeiT or ViT, the text side from BERT, under released names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

from torch import Tensor

from model.families.vicha.config import ConceptsConfig
from model.families.vicha.released import merged, sizes

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
_OLD_NORMS = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


def foundation(
    vision: Mapping[str, Tensor], text: Mapping[str, Tensor], *, concept_layers: int = ConceptsConfig().layers
) -> dict[str, Tensor]:
    """Lay a vision transformer and a BERT together as the beginnings of a pretraining file.

    Args:
        vision: of DeiT or a ViT as timm names it (`blocks.…`, `pos_embed`); its classifier is left out.
        text: of a BERT, with or without the head of masked words; its pooler is left out.
        concept_layers: how many of BERT's first layers the concept tower starts from, with its own copy of the embeddings.

    Returns:
        Released names to tensors; what neither model has (cross-attention, projections) is not there.

    Raises:
        ValueError: one of them is no such model.
    """
    if "cls_token" not in vision or "blocks.0.attn.qkv.weight" not in vision:
        raise ValueError("vision: no 'cls_token' and 'blocks.…' in it; give a DeiT or ViT as timm names its weights")
    found = {
        f"visual_encoder.{name}": value for name, value in vision.items() if not name.startswith(("head", "fc_norm"))
    }
    words = dict(_bert(text))
    if "bert.embeddings.word_embeddings.weight" not in words:
        raise ValueError("text: no 'embeddings.word_embeddings' in it; give a BERT as transformers names its weights")
    found |= {f"text_encoder.{name}": value for name, value in words.items()}
    for name, value in words.items():
        layer = _LAYER.search(name)
        if name.startswith("bert.") and (layer is None or int(layer[1]) < concept_layers):
            found[f"kw_encoder.{name.removeprefix('bert.')}"] = value
    return found


def foundation_settings(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Work out the family's config keys for the published pretraining: the upper half of BERT's layers reads pictures.

    Args:
        tensors: from `foundation`.
        settings: what shall differ, as nested keys of the family's config.
    """
    data = sizes(tensors, "pretraining")
    del data["concepts"]  # by the published config, not by the file
    data["text"]["fusion_layer"] = data["text"]["layers"] // 2
    return merged(data, settings or {})


def _bert(text: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """BERT's tensors with the prefix that only models with a head have; older files name the norms otherwise."""
    for name, value in text.items():
        spelt = reduce(lambda spelt, norm: spelt.replace(*norm), _OLD_NORMS, name)
        whole = spelt if spelt.startswith(("bert.", "cls.")) else f"bert.{spelt}"
        if not whole.startswith(("bert.pooler.", "cls.seq_relationship.")):
            yield whole, value
