from __future__ import annotations

from concepts.pools import collect, merge_pools, objects_of
from shards.records import Annotation, Answer, Caption, Detection, Question


def question(answer: str, kind: str | None) -> Question:
    return Question(question="?", answers=(Answer(text=answer),), question_type=kind)


CAPTIONS = [Caption(text=f"caption {number}") for number in range(40)]


def test_captions_objects_and_answers_go_into_their_pools_once() -> None:
    found = collect(
        [
            Caption(text="A  dog."),
            Caption(text="A dog."),
            Detection(label="fire truck", box=(0, 0, 1, 1)),
            question("2", "how many"),
            question("red", None),
        ],
        max_captions=10,
    )
    pools = merge_pools([found, found], max_captions=10)
    assert pools.captions == ("A dog.",)
    assert pools.objects == ("fire truck",)
    assert pools.answers == {"how many": ("2",), "other": ("red",)}


def test_the_bounded_pool_does_not_depend_on_how_the_captions_are_cut() -> None:
    whole = merge_pools([collect(CAPTIONS, max_captions=9)], max_captions=9)
    cut = merge_pools([collect(CAPTIONS[a:b], max_captions=9) for a, b in ((0, 7), (7, 30), (30, 40))], max_captions=9)
    assert cut == whole
    assert len(whole.captions) == 9


def test_where_all_answers_have_a_type_the_fallback_holds_them_all() -> None:
    pools = merge_pools(
        [collect([question("2", "how many"), question("red", "color")], max_captions=1)], max_captions=1
    )
    assert pools.answers["other"] == ("2", "red")


def test_the_longest_name_in_a_caption_is_its_object() -> None:
    names = frozenset({"fire truck", "truck", "dog", "cat"})
    annotations: list[Annotation] = [Caption(text="A Dog, near a fire truck"), Detection(label="cat", box=(0, 0, 1, 1))]
    assert objects_of(annotations, names) == ["dog", "fire truck", "cat"]
    assert objects_of([Caption(text="hotdogs and trucks")], names) == []
