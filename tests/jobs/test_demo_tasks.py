"""What the demo asks, claims and states: true of its scenes, and of no use to a reader who does not look."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.demo.captions import NOUNS, PLACES, SIZE_WORDS, plural
from jobs.demo.drawing import PICTURE_SIDE, render
from jobs.demo.raw import FIRST_ID, DemoRawConfig, Split, draw_world
from jobs.demo.scenes import Group, Scene
from jobs.demo.tasks import expressions, hypotheses, questions, statements
from jobs.demo.tasks.balance import balanced
from shards.errors import DatasetError

SCALE = 0.2
KIND_OF = {noun: kind for kind, nouns in NOUNS.items() for noun in nouns}
KIND_OF |= {plural(noun): kind for noun, kind in KIND_OF.items()}
PLACE_OF = {words: place for place, phrases in PLACES.items() for words in phrases}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Split, tuple[Scene, ...]]:
    return draw_world(DemoRawConfig(output="unused", scale=SCALE, seed=5))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The raw files of a task by its module's name, written once."""
    root = tmp_path_factory.mktemp("raw")
    write = {
        "questions": questions.write_questions,
        "hypotheses": hypotheses.write_hypotheses,
        "statements": statements.write_statements,
        "expressions": expressions.write_expressions,
    }

    def folder(task: str) -> Path:
        if not (root / task).exists():
            write[task](DemoRawConfig(output=str(root / task), scale=SCALE, seed=5))
        return root / task

    return folder


def group_of(scene: Scene, noun: str) -> Group | None:
    return next((group for group in scene.groups if group.kind == KIND_OF[noun]), None)


def stands(scene: Scene, first: str, where: str, second: str) -> bool:
    spots = {group.kind: spot for spot, group in enumerate(scene.groups)}
    before = spots[KIND_OF[first]] < spots[KIND_OF[second]]
    level = scene.layout in ("beside", "row")
    return {
        "to the left of": level and before,
        "to the right of": level and not before,
        "above": not level and before,
        "below": not level and not before,
    }[where]


def answer(scene: Scene, question: str) -> str:
    """Answer a question from the facts of its scene, by a reading of its own."""
    if question == "Where was this picture taken?":
        return questions.PLACES[scene.backdrop][0]
    if found := re.fullmatch(r"What color (?:is|are) the (\w+)\?", question):
        group = group_of(scene, found[1])
        assert group is not None
        return group.colour
    if found := re.fullmatch(r"How many (\w+) are there\?", question):
        group = group_of(scene, found[1])
        assert group is not None
        return str(group.count)
    if found := re.fullmatch(r"Is there an? (\w+) (\w+) in the picture\?", question):
        group = group_of(scene, found[2])
        return "yes" if group is not None and group.colour == found[1] else "no"
    if found := re.fullmatch(r"Is the (\w+) (to the left of|above) the (\w+)\?", question):
        return "yes" if stands(scene, *found.groups()) else "no"  # type: ignore[arg-type]
    found = re.fullmatch(r"What is (to the left of|to the right of|above|below) the (\w+)\?", question)
    assert found is not None, question
    (spot,) = (spot for spot, group in enumerate(scene.groups) if group.kind == KIND_OF[found[2]])
    other = scene.groups[spot - 1 if found[1] in ("to the left of", "above") else spot + 1]
    assert stands(scene, NOUNS[other.kind][0], found[1], found[2])
    return NOUNS[other.kind][0]


def best_without_looking(said: Iterable[tuple[str, str]]) -> float:
    """Share of right answers of a reader who knows every text's commonest answer beforehand."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text, right in said:
        counts[text][right] += 1
    return sum(max(each.values()) for each in counts.values()) / sum(each.total() for each in counts.values())


def read_questions(folder: Path, split: Split) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    held = folder / questions.HELD_BACK if split == "test" else folder
    asked = json.loads((folder / f"v2_OpenEnded_mscoco_{split}2017_questions.json").read_text())["questions"]
    given = json.loads((held / f"v2_mscoco_{split}2017_annotations.json").read_text())["annotations"]
    return list(zip(asked, given, strict=True))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_most_annotators_answer_a_question_as_its_scene_does(
    split: Split, world: Mapping[Split, Sequence[Scene]], raw: Callable[[str], Path]
) -> None:
    rows = read_questions(raw("questions"), split)
    assert len({asked["question_id"] for asked, _ in rows}) == len(rows)
    right = []
    for asked, given in rows:
        assert asked["question_id"] == given["question_id"]
        assert asked["image_id"] == given["image_id"]
        assert len(given["answers"]) == 10
        scene = world[split][asked["image_id"] - FIRST_ID[split]]  # an IndexError: a scene of another split
        right.append(answer(scene, asked["question"]) == given["multiple_choice_answer"])
    assert np.mean(right) > 0.97
    assert {given["answer_type"] for _, given in rows} == {"yes/no", "number", "other"}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_question_is_asked_of_two_scenes_with_different_answers(
    split: Split, world: Mapping[Split, Sequence[Scene]], raw: Callable[[str], Path]
) -> None:
    rows = {asked["question_id"]: asked for asked, _ in read_questions(raw("questions"), split)}
    held = raw("questions") / (questions.HELD_BACK if split == "test" else "")
    pairs = json.loads((held / f"v2_mscoco_{split}2017_complementary_pairs.json").read_text())
    assert sorted(id for pair in pairs for id in pair) == sorted(rows)
    truth = {id: answer(world[split][row["image_id"] - FIRST_ID[split]], row["question"]) for id, row in rows.items()}
    for first, second in pairs:
        assert rows[first]["question"] == rows[second]["question"]
        assert truth[first] != truth[second]
    assert best_without_looking((row["question"], truth[id]) for id, row in rows.items()) <= 0.5


def test_the_answers_of_the_test_split_lie_apart(raw: Callable[[str], Path]) -> None:
    folder = raw("questions")
    assert not list(folder.glob("*test*annotations*"))
    assert "answer" not in (folder / "v2_OpenEnded_mscoco_test2017_questions.json").read_text()


def judge(scene: Scene, text: str) -> str:
    """Label a hypothesis from the facts of its scene, by a reading of its own."""
    if found := re.fullmatch(r"The (\w+) is (to the left of|above) the (\w+)\.", text):
        if group_of(scene, found[1]) is None or group_of(scene, found[3]) is None:
            return "neutral"
        return "entailment" if stands(scene, *found.groups()) else "contradiction"  # type: ignore[arg-type]
    found = re.fullmatch(r"The (\w+) is (.+)\.", text)
    assert found is not None, text
    group = group_of(scene, found[1])
    if group is None:
        return "neutral"
    return "entailment" if found[2] == group.colour or PLACE_OF.get(found[2]) == scene.backdrop else "contradiction"


@pytest.mark.parametrize(("split", "published"), [("train", "train"), ("val", "dev"), ("test", "test")])
def test_a_hypothesis_has_every_label_once_and_its_scene_bears_it_out(
    split: Split, published: str, world: Mapping[Split, Sequence[Scene]], raw: Callable[[str], Path]
) -> None:
    lines = (raw("hypotheses") / f"snli_ve_{published}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["pairID"] for row in rows}) == len(rows)
    truth = [judge(world[split][int(row["Flickr30K_ID"]) - FIRST_ID[split]], row["sentence2"]) for row in rows]
    assert np.mean([label == row["gold_label"] for label, row in zip(truth, rows, strict=True)]) > 0.98
    assert all(row["annotator_labels"][0] == label for label, row in zip(truth, rows, strict=True))
    assert set(Counter(truth).values()) == {len(rows) // 3}
    assert best_without_looking(zip((row["sentence2"] for row in rows), truth, strict=True)) == pytest.approx(1 / 3)


def is_true(pair: tuple[Scene, Scene], text: str) -> bool:
    """Judge a statement from the facts of both scenes, by a reading of its own."""
    if found := re.fullmatch(r"The (left|right) image was taken (.+)\.", text):
        return PLACE_OF[found[2]] == pair[found[1] == "right"].backdrop
    if found := re.fullmatch(r"The (left|right) image shows an? (\w+) (\w+)\.", text):
        group = group_of(pair[found[1] == "right"], found[3])
        return group is not None and group.colour == found[2]
    if found := re.fullmatch(r"(Both images show|Only one of the images shows) an? (\w+)\.", text):
        shown = sum(group_of(scene, found[2]) is not None for scene in pair)
        return shown == (2 if found[1].startswith("Both") else 1)
    found = re.fullmatch(r"(One|The left|The right) image shows (.+)", text)
    assert found is not None, text
    fitting = [is_shown(scene, found[2]) for scene in pair]
    return any(fitting) if found[1] == "One" else fitting[found[1] == "The right"]


def is_shown(scene: Scene, caption: str) -> bool:
    """Whether place, kinds and colours are a scene's: no two of so few scenes share them all."""
    words = caption.rstrip(".").replace(",", "").split()
    things = {(words[spot - 1], KIND_OF[word]) for spot, word in enumerate(words) if word in KIND_OF}
    place = next(place for words_of_it, place in PLACE_OF.items() if caption.rstrip(".").endswith(words_of_it))
    return place == scene.backdrop and things == {(group.colour, group.kind) for group in scene.groups}


@pytest.mark.parametrize(("split", "published"), [("train", "train"), ("val", "dev"), ("test", "test1")])
def test_a_statement_is_as_often_true_as_false_and_its_pictures_bear_it_out(
    split: Split, published: str, world: Mapping[Split, Sequence[Scene]], raw: Callable[[str], Path]
) -> None:
    from PIL import Image

    folder = raw("statements")
    rows = [json.loads(line) for line in (folder / f"{published}.json").read_text().splitlines()]
    pictures = {render(scene).tobytes(): scene for scene in world[split]}
    pairs: dict[str, tuple[Scene, Scene]] = {}
    for row in rows:
        name = row["identifier"].rpartition("-")[0]
        if name not in pairs:
            files = [folder / "images" / published / f"{name}-img{side}.png" for side in (0, 1)]
            left, right = (Image.open(file).tobytes() for file in files)
            pairs[name] = pictures[left], pictures[right]  # a KeyError: a picture of another split
        assert is_true(pairs[name], row["sentence"]) == (row["label"] == "True"), row["sentence"]
    assert best_without_looking((row["sentence"], row["label"]) for row in rows) == 0.5
    assert len({row["identifier"] for row in rows}) == len(rows) > 100


def fits(group: Group, text: str) -> bool:
    words = [word for word in text.split() if word not in ("the", "in")]
    known = {*NOUNS[group.kind], group.colour, *SIZE_WORDS[group.size]}
    return all(word in known for word in words)


def test_an_expression_fits_one_thing_of_several_and_a_wrong_proposal_is_the_rule(
    world: Mapping[Split, Sequence[Scene]], raw: Callable[[str], Path]
) -> None:
    folder = raw("expressions")
    refs = pickle.loads((folder / "refs(unc).p").read_bytes())
    instances = json.loads((folder / "instances.json").read_text())
    proposals = json.loads((folder / "dets.json").read_text())
    boxes = {row["id"]: row for row in instances["annotations"]}
    things = Counter(row["image_id"] for row in instances["annotations"])
    assert {ref["split"] for ref in refs} == {"train", "val", "testA", "testB"}
    chances, largest = [], []
    for ref in refs:
        split: Split = "test" if ref["split"].startswith("test") else ref["split"]
        scene = world[split][ref["image_id"] - FIRST_ID[split]]
        assert things[ref["image_id"]] >= 2
        for sentence in ref["sentences"]:
            assert sum(fits(group, sentence["sent"]) for group in scene.groups) == 1, sentence["sent"]
        truth = boxes[ref["ann_id"]]["bbox"]
        right = [overlap(truth, box) >= 0.5 for box in proposals[str(ref["image_id"])]]
        assert any(right)
        chances.append(np.mean(right))
        largest.append(right[int(np.argmax([box[2] * box[3] for box in proposals[str(ref["image_id"])]]))])
    assert np.mean(chances) < 0.35
    assert np.mean(largest) < 0.4


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def test_a_box_holds_the_pixels_of_its_thing(
    world: Mapping[Split, Sequence[Scene]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.demo.drawing._shadow", lambda *_: None)  # a shadow is no part of its thing
    kinds = set()
    for scene in world["train"]:
        if scene.layout != "alone" or scene.groups[0].count > 1:
            continue
        (thing,) = expressions.find_things(scene)
        empty = Scene(backdrop=scene.backdrop, layout="alone", groups=(), jitter=scene.jitter)
        changed = np.abs(np.asarray(render(scene), int) - np.asarray(render(empty), int)).max(axis=2) > 40
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        seen = columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
        assert overlap(thing.box, seen) > 0.85, scene
        x, y, width, height = thing.box
        assert 0 <= x < x + width <= PICTURE_SIDE
        assert 0 <= y < y + height <= PICTURE_SIDE
        kinds.add(thing.group.kind)
    assert len(kinds) > 6


@pytest.mark.parametrize(
    "write",
    [
        questions.write_questions,
        hypotheses.write_hypotheses,
        statements.write_statements,
        expressions.write_expressions,
    ],
)
def test_raw_files_repeat_and_those_of_another_seed_are_not_mixed_in(
    write: Callable[[DemoRawConfig], None], tmp_path: Path
) -> None:
    written = []
    for name in ("first", "again"):
        write(DemoRawConfig(output=str(tmp_path / name), scale=0.01))
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()})
    assert len(written[0]) > 2
    assert written[0] == written[1]
    with pytest.raises(DatasetError, match="another seed"):
        write(DemoRawConfig(output=str(tmp_path / "first"), scale=0.01, seed=1))


def test_balancing_fills_what_a_scarce_kind_leaves() -> None:
    items = [("rare", "a", 0), ("rare", "a", 1), *(("usual", f"text {n // 2}", n % 2) for n in range(40))]
    groups = balanced(
        items,
        np.random.default_rng(0),
        text=lambda item: item[1],
        answer=lambda item: item[2],
        kind=lambda item: item[0],
        answers=2,
        limit=20,
    )
    assert Counter(group[0][0] for group in groups) == {"rare": 1, "usual": 9}
    for one, other in groups:
        assert one[1] == other[1]
        assert one[2] != other[2]


def test_balancing_gives_every_text_each_answer_equally_often() -> None:
    rng = np.random.default_rng(1)
    items = [(f"text {rng.integers(5)}", int(rng.integers(4))) for _ in range(300)]
    groups = balanced(
        items, rng, text=lambda item: item[0], answer=lambda item: item[1], kind=lambda _: "", answers=3, limit=150
    )
    assert 100 < 3 * len(groups) <= 150
    assert all(len({answer for _, answer in group}) == 3 for group in groups)
    assert all(len({text for text, _ in group}) == 1 for group in groups)
