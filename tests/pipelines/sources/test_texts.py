"""Sources of texts without media: lines, documents, headlines, and every task of GLUE with its quirks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError
from shards.reader import Dataset
from shards.records import Annotation, Entailment, Text


def write(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def table(*rows: tuple[str, ...]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def annotations_of(dataset: Dataset) -> list[Annotation]:
    assert all(not record.media and len(record.annotations) == 1 for record in dataset.records())
    return [record.annotations[0] for record in dataset.records()]


def test_every_line_that_is_not_blank_is_a_text_named_by_its_number(tmp_path: Path, convert: Any) -> None:
    file = write(tmp_path / "a.txt", "\ufefffirst\r\n\r\n  third\tpart \n")
    dataset = convert({"kind": "text_lines", "annotations": file}).dataset
    assert annotations_of(dataset) == [Text(source="first"), Text(source="third\tpart")]
    assert [record.key for record in dataset.records()] == ["text_lines-all-000000001", "text_lines-all-000000003"]


def test_documents_keep_their_lines_and_end_at_blank_ones(tmp_path: Path, convert: Any) -> None:
    file = write(tmp_path / "a.txt", "\n\none\ntwo\n \n\nthree")
    dataset = convert({"kind": "text_lines", "annotations": file, "text_is": "document"}).dataset
    assert annotations_of(dataset) == [Text(source="one\ntwo"), Text(source="three")]
    assert [record.origin.id for record in dataset.records()] == ["3", "7"]


def test_a_line_with_broken_bytes_is_one_reject(tmp_path: Path, convert: Any) -> None:
    file = write(tmp_path / "a.txt", b"good\n\xff\xfebad\nbetter\n")
    done = convert({"kind": "text_lines", "annotations": file})
    assert [text.source for text in annotations_of(done.dataset) if isinstance(text, Text)] == ["good", "better"]
    assert done.reasons("annotation") == {"2": "broken_utf8"}
    assert done.card.raw_items == 3


def test_headlines_are_the_same_from_a_table_and_from_two_files(tmp_path: Path, convert: Any) -> None:
    one = write(tmp_path / "train.tsv", "long text\tshort\nanother\tone\n")
    articles = write(tmp_path / "train.article.txt", "long text\nanother\n")
    write(tmp_path / "train.title.txt", "short\none\n")
    wanted = [Text(source="long text", target="short"), Text(source="another", target="one")]
    for file in (one, articles):
        done = convert({"kind": "gigaword", "annotations": file})
        assert annotations_of(done.dataset) == wanted
        assert done.card.split == "train"


def test_a_headline_file_that_is_cut_is_noticed(tmp_path: Path, convert: Any) -> None:
    articles = write(tmp_path / "a.src", "one\ntwo\n")
    titles = write(tmp_path / "b.txt", "one\n")
    with pytest.raises(InputError, match="more lines than"):
        convert({"kind": "gigaword", "annotations": articles, "titles": titles})


def test_an_article_file_alone_is_no_table(tmp_path: Path, convert: Any) -> None:
    articles = write(tmp_path / "articles.txt", "one\ntwo\n")
    with pytest.raises(InputError, match="1 columns"):
        convert({"kind": "gigaword", "annotations": articles})


PAIRS = {
    "RTE/train.tsv": (
        table(("index", "sentence1", "sentence2", "label"), ("7", "a", "b", "not_entailment")),
        Entailment(premise="a", hypothesis="b", label="not_entailment"),
    ),
    "WNLI/dev.tsv": (
        table(("index", "sentence1", "sentence2", "label"), ("7", "a", "b", "1")),
        Entailment(premise="a", hypothesis="b", label="entailment"),
    ),
    "RTE/test.tsv": (
        table(("index", "sentence1", "sentence2"), ("7", "a", "b")),
        Entailment(premise="a", hypothesis="b", label=None),
    ),
    "AX/diagnostic.tsv": (
        table(("index", "sentence1", "sentence2"), ("7", "a", "b")),
        Entailment(premise="a", hypothesis="b", label=None),
    ),
    "x/qnli.tsv": (
        table(("index", "question", "sentence", "label"), ("7", "who?", "he", "entailment")),
        Entailment(premise="he", hypothesis="who?", label="entailment"),
    ),
    "x/mrpc_is_told_by_its_columns.tsv": (
        "\ufeff" + table(("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"), ("0", "5", "6", 'a "quote', "b")),
        Entailment(premise='a "quote', hypothesis="b", label="not_equivalent"),
    ),
    "x/qqp_too.tsv": (
        table(("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), ("3", "1", "2", "a", "b", "1")),
        Entailment(premise="a", hypothesis="b", label="duplicate"),
    ),
    "STS-B/dev.tsv": (
        table(("index", "genre", "sentence1", "sentence2", "score"), ("0", "news", "a", "b", "3.800")),
        Entailment(premise="a", hypothesis="b", label="3.800"),
    ),
    "MNLI/dev_matched.tsv": (
        table(
            ("index", "promptID", "pairID", "sentence1", "sentence2", "label1", "gold_label"),
            ("0", "63735", "63735n", "a", "b", "neutral", "contradiction"),
        ),
        Entailment(premise="a", hypothesis="b", label="contradiction"),
    ),
    "SST-2/train.tsv": (table(("sentence", "label"), ("fine ", "1")), Text(source="fine", target="positive")),
    "SST-2/test.tsv": (table(("index", "sentence"), ("0", "fine")), Text(source="fine", target=None)),
    "CoLA/train.tsv": (table(("gj04", "0", "*", "They is.")), Text(source="They is.", target="unacceptable")),
    "CoLA/test.tsv": (table(("index", "sentence"), ("0", "They are.")), Text(source="They are.", target=None)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_each_task_of_glue_is_read_by_its_own_columns(name: str, tmp_path: Path, convert: Any) -> None:
    content, wanted = PAIRS[name]
    done = convert({"kind": "glue", "annotations": write(tmp_path / name, content)})
    assert annotations_of(done.dataset) == [wanted]
    assert done.card.split == Path(name).stem


def test_a_pair_without_an_agreed_label_or_with_an_unknown_one_is_refused_by_name(tmp_path: Path, convert: Any) -> None:
    rows: list[tuple[str, ...]] = [
        ("index", "sentence1", "sentence2", "label"),
        ("1", "a", "b", "1"),
        ("2", "a", "b", "-"),
        ("3", "a", "b", "2"),
    ]
    rows += [("1", "c", "d", "0"), ("4", "a"), ("5", "a", "b", "")]
    done = convert({"kind": "glue", "annotations": write(tmp_path / "WNLI" / "dev.tsv", table(*rows))})
    assert done.reasons("annotation") == {
        "2": "filtered",
        "3": "unsupported",
        "4": "missing_field",
        "5": "missing_field",
    }
    assert [reject.reason for reject in done.rejects if reject.level == "item"].count("duplicate_id") == 1
    assert done.card.records == 1


def test_pairs_without_an_agreed_label_are_left_out_and_use_up_no_budget(tmp_path: Path, convert: Any) -> None:
    rows: list[tuple[str, ...]] = [("index", "sentence1", "sentence2", "gold_label"), ("0", "a", "b", "neutral")]
    rows += [(str(number), "a", "b", "-") for number in range(1, 200)]
    done = convert({"kind": "glue", "annotations": write(tmp_path / "MNLI" / "dev_matched.tsv", table(*rows))})
    assert (done.card.records, done.reasons()["7"]) == (1, "filtered")


def test_labels_under_another_name_are_not_taken_for_a_test_file(tmp_path: Path, convert: Any) -> None:
    file = write(
        tmp_path / "MNLI" / "dev.tsv", table(("index", "sentence1", "sentence2", "label"), ("0", "a", "b", "x"))
    )
    with pytest.raises(InputError, match="has the labels label, where mnli has gold_label"):
        convert({"kind": "glue", "annotations": file})


def test_a_table_of_no_task_is_asked_for_its_task(tmp_path: Path, convert: Any) -> None:
    file = write(tmp_path / "some.tsv", table(("index", "sentence1", "sentence2", "label"), ("0", "a", "b", "1")))
    with pytest.raises(InputError, match=r"source\.task"):
        convert({"kind": "glue", "annotations": file})
    assert convert({"kind": "glue", "annotations": file, "task": "wnli"}).card.records == 1
