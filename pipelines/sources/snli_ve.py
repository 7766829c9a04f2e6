"""SNLI-VE: `snli_ve_<split>.jsonl`, hypotheses about Flickr30k's photos; one record is one photo with all of them.

    source.kind=snli_ve source.annotations=snli_ve_train.jsonl source.media=flickr30k-images

The premise is the caption that the photo stands for. `-` as a gold label says that the annotators did not agree; such a hypothesis
is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pipelines.drafts import Draft, Place, Problem, drafted_from_files, usable_text
from pipelines.json_lines import read_json_lines
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken, printable
from pipelines.source import Source, SourceConfig, Target
from shards.media import MediaProblem
from shards.records import Entailment

_SPLIT_IN_NAME = re.compile(r"snli_ve_(train|dev|test)")
_LABELS = frozenset({"entailment", "neutral", "contradiction"})


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off a name such as `snli_ve_dev.jsonl`."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder of Flickr30k's photos."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _photos(config.annotations), config=config, target=target)


def _photos(path: str) -> list[Draft]:
    """The photos with their hypotheses, sorted by id: the file shuffles them."""
    photos: dict[str, Draft] = {}
    taken: set[str] = set()
    lines = read_json_lines(path, key="source.annotations", must_have="Flickr30K_ID", what="snli_ve_*.jsonl of SNLI-VE")
    for line in lines:
        where = f"line {line.number}"
        photo = _photo(photos, line.fields.get("Flickr30K_ID"), where=where)
        raw = line.fields.get("pairID")
        id = printable(raw) if isinstance(raw, str) and raw else where
        with photo.refusing(id):
            if id in taken:
                raise MediaProblem("duplicate_id", f"{where} repeats an earlier pairID")
            taken.add(id)
            photo.annotations.append(_entailment(line.fields, id=id, where=where))
    return sorted(photos.values(), key=lambda photo: (len(photo.id), photo.id))


def _photo(photos: dict[str, Draft], raw: Any, *, where: str) -> Draft:
    if not isinstance(raw, str | int) or isinstance(raw, bool) or raw == "" or is_broken(str(raw)):
        problem: Problem = ("missing_field", f"{where} has no usable Flickr30K_ID")
        return photos.setdefault(where, Draft(id=where, stem=where, problem=problem))
    id = str(raw).removesuffix(".jpg")
    if id not in photos:
        photos[id] = Draft(id=id, stem=id, media=[Place(file=f"{id}.jpg")])
    return photos[id]


def _entailment(fields: Mapping[str, Any], *, id: str, where: str) -> Entailment:
    """One hypothesis. Raises `MediaProblem` where it cannot be used."""
    label = fields.get("gold_label")
    if label == "-":
        raise MediaProblem("filtered", f"{where}: the annotators did not agree on a label")
    if not isinstance(label, str) or label not in _LABELS:
        raise MediaProblem("missing_field", f"{where}: gold_label {label!r} is none of {', '.join(sorted(_LABELS))}")
    premise = fields.get("sentence1")
    return Entailment(
        id=id,
        hypothesis=usable_text(fields.get("sentence2"), what="hypothesis", where=where),
        premise=None if premise is None else usable_text(premise, what="premise", where=where),
        label=label,
    )
