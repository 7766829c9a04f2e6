"""VLP's region features with their captions or questions; each picture becomes a record of one `.npz` of regions, without pixels.

source.kind=vlp source.annotations=dataset_coco.json source.split=train+restval source.media=region_feat_gvd_wo_bgd
source.kind=vlp source.annotations=imdb_train2014.npy source.media=region_feat_gvd_wo_bgd

`annotations` is a `dataset_coco.json`, `dataset_flickr30k.json` or `dataset_cc.json` (Karpathy's layout), or a Pythia
`imdb_*.npy` of VQA. Answers are weighted by their share of the annotators; VLP's soft score of an answer that `n` of the ten gave
follows from it: the mean over annotators of `min(1, others that agree / 3)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pipelines.drafts import Draft, DraftedSource, Place, Problem
from pipelines.json_stream import stream_json
from pipelines.object_arrays import read_objects
from pipelines.packed import plain_name
from pipelines.questions import QuestionIds, annotators_answers, ask
from pipelines.raw_text import is_broken, printable, read_json
from pipelines.region_features import RegionFiles
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.media import MediaProblem

KEY = "source.annotations"
_SPLIT = re.compile(r"imdb_(?:mirror_)?(train|val|minival|trainval|test-dev|test)")


class Config(SourceConfig):
    """`split` selects in a Karpathy file: `train`, `val`, `test`, `restval`, or several as `train+restval`; unset: all."""

    LOCATIONS: ClassVar = ("annotations", "media", "boxes", "listed")

    media: str
    """The folder of the features: `feat_cls_1000` and its kin, or `.npy` files; the file of boxes is looked for there too."""
    boxes: str | None = None
    """The HDF5 file of all boxes, where it lies elsewhere or several could be it."""
    listed: str | None = None
    """A JSON file whose keys are the file names to take, such as `coco_valid_jpgs.json`; all others are filtered by name."""

    def split_name(self) -> str:
        found = _SPLIT.search(PurePosixPath(self.annotations).name)
        return found.group(1).replace("-", "_") if self.split is None and found else super().split_name()


def build(config: Config, target: Target) -> Source:
    files = RegionFiles(config.media, boxes=config.boxes, follow_links=config.follow_links)
    return DraftedSource(
        lambda: _drafts(config, files), target=target, load=lambda place: files.load(place["at"]), limit=config.limit
    )


def _drafts(config: Config, files: RegionFiles) -> Iterator[Draft]:
    files.find()
    listed = _listed(config.listed)
    for file, draft in _questioned(config) if plain_name(config.annotations).endswith(".npy") else _captioned(config):
        if draft.problem is None and listed is not None and file not in listed:
            draft.problem = ("filtered", f"{printable(file)} is not in {PurePosixPath(config.listed or '').name}")
        if draft.problem is None:
            try:
                draft.media.append(Place(kind="regions", at=files.of(PurePosixPath(file).stem)))
            except MediaProblem as problem:
                draft.problem = (problem.reason, problem.detail)
        yield draft


def _captioned(config: Config) -> Iterator[tuple[str, Draft]]:
    """Yield (file name of the picture, its captions), in the order of the file."""
    seen: set[str] = set()  # ids and file names: features are found by the file's, so that it is one picture
    for number, image in _images(config):
        where = f"images[{number}]"
        file = image.get("filename")
        if not isinstance(file, str) or not file or is_broken(file):
            yield "", Draft(id=where, stem=where, problem=("missing_field", f"{where} has no usable filename"))
            continue
        id = str(image["cocoid"]) if "cocoid" in image else file
        split = image.get("split")
        draft = Draft(id=id, stem=file.removesuffix(".jpg"), split=split if isinstance(split, str) else None)
        if id in seen or file in seen:
            draft.problem, draft.stem = (
                ("duplicate_id", f"{where} repeats the id or the file of an earlier image"),
                where,
            )
        seen |= {id, file}
        sentences = image.get("sentences")
        for place, sentence in enumerate(sentences if isinstance(sentences, list) else ()):
            fields = sentence if isinstance(sentence, dict) else {}
            sentid = str(fields["sentid"]) if "sentid" in fields else None
            draft.add_caption(fields.get("raw"), id=sentid, where=f"{id} sentences[{place}]")
        yield file, draft


def _images(config: Config) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The images of the wanted splits with their numbers; at the end of the file it is clear whether it was the right one."""
    wanted = None if config.split is None else set(config.split.split("+"))
    there: set[str] = set()
    number = 0
    for name, image in stream_json(config.annotations, key=KEY, lists=("images",)):
        if name != "images":
            continue
        if not isinstance(image, dict):
            break
        split = str(image.get("split"))
        there.add(split)
        if wanted is None or split in wanted:
            yield number, image
        number += 1
    if not there:
        raise InputError(
            f"{KEY}: {config.annotations} has no list `images` of objects; give VLP's dataset_coco.json, "
            "dataset_flickr30k.json or dataset_cc.json, or an imdb_*.npy of VQA"
        )
    if unknown := sorted((wanted or set()) - there):
        raise InputError(
            f"source.split: {config.annotations} has no split {unknown[0]!r}; it has {', '.join(sorted(there))}"
        )


def _questioned(config: Config) -> Iterator[tuple[str, Draft]]:
    """Yield (file name of the picture, all its questions), by first appearance."""
    pictures: dict[str, Draft] = {}
    names: dict[str, str] = {}
    ids = QuestionIds()
    rows = read_objects(config.annotations, key=KEY)
    if rows and isinstance(rows[0], dict) and "question_id" not in rows[0]:
        rows[0] = None  # the header of the file
    if not any(isinstance(row, dict) and "image_name" in row for row in rows):
        raise InputError(f"{KEY}: {config.annotations} has no questions with an image_name; give an imdb_*.npy of VQA")
    for number, row in enumerate(rows):
        if number == 0 and row is None:
            continue
        where = f"entry {number}"
        fields = row if isinstance(row, dict) else {}
        name = fields.get("image_name")
        if not isinstance(name, str) or not name or is_broken(name):
            problem: Problem = ("missing_field", f"{where} has no image_name")
            draft = pictures[where] = Draft(id=where, stem=where, problem=problem)
        else:
            draft = pictures.setdefault(name, Draft(id=name, stem=name))
            path = fields.get("feature_path")  # its stem is the name of the features
            names.setdefault(name, f"{PurePosixPath(path).stem if isinstance(path, str) and path else name}.jpg")
        _ask(draft, fields, ids=ids, where=where)
    for id, draft in pictures.items():
        yield names.get(id, ""), draft


def _ask(draft: Draft, fields: Mapping[str, Any], *, ids: QuestionIds, where: str) -> None:
    with draft.refusing(str(fields.get("question_id", where))):
        text, tokens, answers = (fields.get(name) for name in ("question_str", "question_tokens", "answers"))
        if text is None and isinstance(tokens, list):
            text = " ".join(str(token) for token in tokens)
        ask(
            draft,
            text,
            id=ids.take(fields.get("question_id"), where=where),
            # A test split has no answers, and says so by an empty list or by none at all.
            answers=annotators_answers(list(answers) if isinstance(answers, tuple) else answers, where=where)
            if answers
            else (),
            where=where,
        )


def _listed(path: str | None) -> frozenset[str] | None:
    if path is None:
        return None
    content = read_json(path, key="source.listed")
    if not isinstance(content, dict):
        raise InputError(
            f"source.listed: {path} is no JSON object by file name; give a file such as coco_valid_jpgs.json"
        )
    return frozenset(content)
