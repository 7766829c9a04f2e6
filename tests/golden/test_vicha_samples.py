"""From ViCHA's released lists to the tokens that a model reads: converted, streamed through each task, made into batches.

What the published datasets return are texts; ours end as token ids, so the two are compared as ids under a vocabulary of
the case's own words.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.families.vicha import Config, build_processor
from model.tokenizer import SPECIALS, WordPiece
from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from pipelines.side_columns import write_side_columns
from shards.address import Address
from shards.reader import open_dataset
from shards.sidecar import open_sidecar
from shards.stream import Item
from trainers.arrival import Deferred
from trainers.stopwatch import Stopwatch
from trainers.tasks import load_task

pytestmark = pytest.mark.golden("vicha/dataset_samples")

SIZE = 32
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Lists:
    """A case's lists as items of a stream, and what makes batches of them."""

    tokenizer: WordPiece
    items: Callable[[Rows], list[list[Item]]]  # for each row of a list, one item per annotation of it

    def batch(self, items: Sequence[Item], task: str, *, train: bool = True, **parts: Any) -> Any:
        """Examples of a task, and their batch by the processor of a family with these parts."""
        examples = [load_task({"kind": task}).example(item, BlankView(), np.random.default_rng(0)) for item in items]
        config = {"image_size": SIZE, "text": {"vocab_size": len(self.tokenizer)}, **parts}
        config["concepts"] = {"draw": None, **config.get("concepts", {})}
        processor = build_processor(Config.model_validate(config), self.tokenizer)
        return processor(examples, list(range(len(examples))), train=train)

    def assert_reads(self, ids: Tensor, mask: Tensor, texts: Sequence[str]) -> None:
        """That rows of real tokens are those of these texts."""
        rows = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
        assert rows == [self.tokenizer.encode(text) for text in texts]


class BlankView:
    """Shows every picture as an empty one: here only texts are compared."""

    stopwatch = Stopwatch()

    def take_deferred(self) -> Deferred:
        """Nothing is left to do."""
        return Deferred()

    def __call__(self, record: Any, rng: Any, *, position: int = 0) -> Tensor:
        return torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)


@pytest.fixture
def lists(case: Any, tmp_path: Path) -> Lists:
    words = sorted(set(re.findall(r"\w+", json.dumps(case.json("expected.json")).lower())))
    return Lists(WordPiece([*SPECIALS, *words]), lambda rows: _converted(tmp_path, rows))


def _converted(tmp_path: Path, rows: Rows) -> list[list[Item]]:
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), (9, 99, 9)).save(picture, "JPEG")
    for row in rows:
        for name in row.get("images", [row.get("image")]):
            # As the released loaders find it: without the authors' folders, with the ending that SNLI-VE leaves out.
            inside = "/".join(name.split("/")[4:]) if name.startswith("/") else name
            file = tmp_path / "media" / (inside if inside.endswith(".jpg") else f"{inside}.jpg")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture.getvalue())
    (tmp_path / "list.json").write_text(json.dumps(rows))
    source = {"kind": "vicha_json", "annotations": str(tmp_path / "list.json"), "media": str(tmp_path / "media")}
    config = ConvertConfig.model_validate({"source": source, "output": str(tmp_path / "out")})
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    dataset = open_dataset(config.output)
    concepts = open_sidecar(dataset, write_side_columns(config)[0])
    records = list(dataset.records())
    pictures = list(dict.fromkeys(_picture(row) for row in rows))  # one record each, by first appearance
    assert len(pictures) == len(records)
    taken = dict.fromkeys(pictures, 0)
    items = []
    for row in rows:
        record = records[pictures.index(_picture(row))]
        caption = row.get("caption")
        count = len(caption) if isinstance(caption, list) else 1
        first = taken[_picture(row)]
        taken[_picture(row)] += count
        sidecars = {"concepts": concepts.row(0, record.key)}
        address = Address(source="lists", shard=0, item=0, epoch=0, position=0)
        items.append(
            [
                Item(address=address, record=record, annotation=annotation, sidecars=sidecars)
                for annotation in range(first, first + count)
            ]
        )
    return items


def _picture(row: dict[str, Any]) -> str:
    return json.dumps(row.get("images", row.get("image")))


def _only(items: list[list[Item]]) -> list[Item]:
    assert all(len(row) == 1 for row in items)
    return [row[0] for row in items]


def _numbered(identities: Tensor) -> list[int]:
    """Identities by first appearance, as the published datasets number pictures."""
    order = list(dict.fromkeys(identities.tolist()))
    return [order.index(identity) for identity in identities.tolist()]


def test_pretraining_pairs_a_picture_with_the_caption_that_was_drawn(case: Any, lists: Lists) -> None:
    wanted = case.json("expected.json")["pretrain"]
    rng = random.Random(wanted["python_seed"])  # the published dataset draws only where there are several captions
    items = [rng.choice(row) if len(row) > 1 else row[0] for row in lists.items(wanted["annotations"])]
    batch = lists.batch(items, "pretraining")
    lists.assert_reads(batch.text_ids, batch.text_mask, [text for text, _ in wanted["items"]])
    lists.assert_reads(batch.concept_ids, batch.concept_mask, [concepts for _, concepts in wanted["items"]])
    assert [item.record.origin.file for item in items] == wanted["image_path_suffix"]


@pytest.mark.parametrize(("section", "rows"), [("retrieval_train", "items"), ("grounding", "train_items")])
def test_captions_and_expressions_of_one_picture_share_its_identity(
    case: Any, lists: Lists, section: str, rows: str
) -> None:
    wanted = case.json("expected.json")[section]
    batch = lists.batch(_only(lists.items(wanted["annotations"])), "retrieval")
    lists.assert_reads(batch.text_ids, batch.text_mask, [text for (text, _), _ in wanted[rows]])
    lists.assert_reads(batch.concept_ids, batch.concept_mask, [concepts for (_, concepts), _ in wanted[rows]])
    assert _numbered(batch.identity) == [identity for _, identity in wanted[rows]]


def test_expressions_keep_their_ids_for_the_test(case: Any, lists: Lists) -> None:
    wanted = case.json("expected.json")["grounding"]
    items = _only(lists.items(wanted["annotations"]))
    batch = lists.batch(items, "retrieval", train=False)
    lists.assert_reads(batch.text_ids, batch.text_mask, [text for _, text, _ in wanted["test_items"]])
    lists.assert_reads(batch.concept_ids, batch.concept_mask, [concepts for concepts, _, _ in wanted["test_items"]])
    ids = [item.record.annotations[item.annotation or 0].id for item in items]
    assert ids == [str(ref) for _, _, ref in wanted["test_items"]]


def test_retrieval_numbers_texts_in_the_order_of_the_file(case: Any, lists: Lists) -> None:
    wanted = case.json("expected.json")["retrieval_eval"]
    items = lists.items(wanted["annotations"])
    texts = [item for row in items for item in row]
    separator = "sep" if wanted["sep_token"] else "space"
    batch = lists.batch(texts, "retrieval", train=False, concepts={"separator": separator})
    lists.assert_reads(batch.text_ids, batch.text_mask, [text for text, _ in wanted["text"]])
    pictures = _numbered(batch.identity)
    assert pictures == [wanted["txt2img"][str(text)] for text in range(len(texts))]
    concepts = [words for words, _ in wanted["items"]]
    lists.assert_reads(batch.concept_ids, batch.concept_mask, [concepts[picture] for picture in pictures])
    for picture, own in wanted["img2txt"].items():
        assert [text for text, found in enumerate(pictures) if found == int(picture)] == own


def test_answers_weigh_their_share_and_end_with_a_separator(case: Any, lists: Lists) -> None:
    wanted = case.json("expected.json")["vqa_train"]
    items = _only(lists.items(wanted["annotations"]))
    batch = lists.batch(items, "vqa", head={"kind": "answers"})
    asked = [text for (text, _), _, _ in wanted["items"]]
    lists.assert_reads(batch.text_ids, batch.text_mask, asked)
    pictures = batch.pictures
    concepts = [words for (_, words), _, _ in wanted["items"]]
    lists.assert_reads(pictures.concept_ids, pictures.concept_mask, concepts)
    answers = [answer for _, answers, _ in wanted["items"] for answer in answers]
    lists.assert_reads(batch.answer_ids, batch.answer_mask, answers)
    weights = [weight for _, _, weights in wanted["items"] for weight in weights]
    assert batch.answer_weights.tolist() == pytest.approx(weights)
    owners = [row for row, (_, answers, _) in enumerate(wanted["items"]) for _ in answers]
    assert batch.answer_owners.tolist() == owners


def test_questions_without_answers_keep_their_ids_for_the_submission(case: Any, lists: Lists) -> None:
    wanted = case.json("expected.json")
    rows = [
        {name: value for name, value in row.items() if name != "answer"} for row in wanted["vqa_train"]["annotations"]
    ]
    items = _only(lists.items(rows))
    head = {"kind": "answers", "eval_max_words": wanted["vqa_test"]["max_ques_words"]}
    batch = lists.batch(items, "vqa", train=False, head=head)
    lists.assert_reads(batch.text_ids, batch.text_mask, [text for (text, _), _ in wanted["vqa_test"]["items"]])
    ids = [item.record.annotations[item.annotation or 0].id for item in items]
    assert ids == [str(id) for _, id in wanted["vqa_test"]["items"]]


def test_entailment_has_the_published_labels(case: Any, lists: Lists) -> None:
    wanted = case.json("expected.json")["visual_entailment"]
    batch = lists.batch(_only(lists.items(wanted["annotations"])), "entailment", head={"kind": "classes"})
    lists.assert_reads(batch.text_ids, batch.text_mask, [text for (text, _), _ in wanted["items"]])
    concepts = [words for (_, words), _ in wanted["items"]]
    lists.assert_reads(batch.pictures.concept_ids, batch.pictures.concept_mask, concepts)
    assert batch.labels.tolist() == [label for _, label in wanted["items"]]


def test_each_of_two_pictures_has_its_own_concepts(case: Any, lists: Lists) -> None:
    wanted = case.json("expected.json")["nlvr2"]
    batch = lists.batch(_only(lists.items(wanted["annotations"])), "statement", head={"kind": "compare"})
    lists.assert_reads(batch.text_ids, batch.text_mask, [text for (text, *_), _ in wanted["items"]])
    for place, pictures in enumerate((batch.pictures, batch.second_pictures), start=1):
        concepts = [texts[place] for texts, _ in wanted["items"]]
        lists.assert_reads(pictures.concept_ids, pictures.concept_mask, concepts)
    assert batch.labels.tolist() == [label for _, label in wanted["items"]]
