"""Evaluations of single questions and expressions on the page: right and wrong ones, with their pictures and maps."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.report.findings import Evaluation, find, read_evaluation
from jobs.report.heat import PEAK, heat_layer, heat_pixels, painted
from jobs.report.page import ReportConfig, build_page
from jobs.report.task_sections import choose_examples, headline, task_section, verdict_of
from shards.errors import InputError
from shards.reader import Dataset
from shards.records import Grounding
from tests.askable import annotated, captions, hypotheses, questions, statements

__all__ = ["annotated"]


@pytest.fixture
def evaluation(tmp_path: Path) -> Callable[..., Evaluation]:
    """Write the results of an evaluation over a dataset: one row per annotation, made by a function of its number."""

    def write(task: str, data: Dataset, row_of: Callable[[int], dict[str, Any]], **facts: Any) -> Evaluation:
        folder = tmp_path / "evaluations" / task
        folder.mkdir(parents=True)
        rows = [
            {"key": record.key, "annotation": place, "text": f"text {number}", **row_of(number)}
            for number, (record, place) in enumerate(
                (record, place) for record in data.records(payload=False) for place in range(len(record.annotations))
            )
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        scores = {"metrics": {}, "task": task, "examples": len(rows), "dataset": data.path, **facts}
        (folder / "scores.json").write_text(json.dumps(scores))
        return read_evaluation(folder)

    return write


def ranked(number: int) -> dict[str, Any]:
    found = [{"text": "red <b>", "score": 0.75}, {"text": "blue", "score": 0.25}]
    return {"predicted": "red <b>", "ranked": found, "right": (0.6, 1.0, 0.3, 0.0)[number % 4]}


def mapped(number: int) -> dict[str, Any]:
    shares = [[0, 40], [PEAK, 10]]
    return {
        "peak": [3, 12],
        "map": shares,
        "ranked": [],
        "box": [0.0, 0.0, 8.0, 8.0],
        "truth": [2.0, 2.0, 11.0, 11.0],
        "pointed": number % 2 == 0,
        "overlap": 0.4 if number % 3 else 0.7,
    }


def section(found: Evaluation, *, count: int = 3) -> str:
    return str(task_section(found, find((), (str(found.path),)).locator(found), count=count, name="task-0"))


def test_answers_are_shown_with_the_human_answers_and_their_own_share(
    annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    found = evaluation(
        "vqa",
        annotated("questions", questions()),
        ranked,
        metrics={"vqa_accuracy": 47.5, "vqa_accuracy/answer_type/yes/no": 70.0, "constant": 20.0},
    )
    page = section(found)
    assert "Right, 3 of 8" in page
    assert "Wrong, 3 of 8" in page
    assert page.count('src="data:image/jpeg') == 6
    assert "what colour is it" in page or "what shape is it" in page  # as the record asks it
    assert "red &lt;b&gt;" in page
    assert "<b>red <b>" not in page
    assert "right 60 %" in page
    assert "wrong 30 %" in page
    assert "47.5" in page
    assert "always the commonest answer" in page
    assert "accuracy · answer type · yes/no" in page


def test_pairs_stand_side_by_side_and_labels_beside_predictions(
    annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    pair = section(evaluation("statement", annotated("statements", statements()), ranked), count=2)
    assert pair.count('class="side-by-side"') == 4
    assert "both have the same colour" in pair
    entailed = section(evaluation("entailment", annotated("hypotheses", hypotheses()), ranked), count=2)
    assert 'class="verdict yes">entailment' in entailed or 'class="verdict no">contradiction' in entailed


def test_a_map_lies_over_its_picture_under_both_boxes_and_a_ring_at_its_peak(
    annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    boxed = [(pictures, [Grounding(text="the shape", box=(2.0, 2.0, 13.0, 13.0))]) for pictures, _ in captions()]
    found = evaluation("grounding", annotated("boxes", boxed), mapped, chance={"pointing/all": 30.0})
    page = section(found, count=8)
    assert page.count("data:image/png;base64") == 8
    assert page.count('class="peak"') == 8
    assert 'cx="3.5" cy="12.5"' in page
    assert page.count(">truth</text>") == page.count(">chosen</text>") == 8
    assert "Right, 3 of 3" in page  # by the overlap of the chosen box, where boxes were proposed
    assert "overlaps the true one by 40 %" in page


def test_a_split_without_truth_shows_predictions_that_are_neither_right_nor_wrong(
    annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    untold = evaluation(
        "vqa", annotated("untold", questions(told=False)), lambda number: {**ranked(number), "right": None}
    )
    page = section(untold)
    assert "Without published truth, 3 of 16" in page
    assert "no score is possible" in page
    assert "Wrong" not in page


def test_records_that_are_no_longer_there_are_named_and_their_texts_kept(
    tmp_path: Path, annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    data = annotated("questions", questions())
    found = evaluation("vqa", data, ranked)
    Path(data.path).rename(tmp_path / "elsewhere")
    page = section(found)
    assert "no picture" in page
    assert "text 0" in page


def test_examples_are_of_different_records_as_long_as_there_are_enough(
    annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    found = evaluation(
        "entailment", annotated("hypotheses", hypotheses()), lambda number: {**ranked(number), "right": 1.0}
    )
    (chosen,) = choose_examples(found, 8)
    assert len({row["key"] for row in chosen.rows}) == 8
    (chosen,) = choose_examples(found, 100)
    assert len(chosen.rows) == chosen.of == 24
    assert not choose_examples(found, 0)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"right": 0.5}, "right"),
        ({"right": 0.3}, "wrong"),
        ({"right": None}, "open"),
        ({"pointed": True, "overlap": 0.2}, "wrong"),
        ({"pointed": False, "overlap": 0.5}, "right"),
        ({"pointed": True, "overlap": None}, "right"),
    ],
)
def test_a_chosen_box_counts_before_the_peak_and_half_an_answer_is_right(row: dict[str, Any], verdict: str) -> None:
    assert verdict_of(row) == verdict


def test_heat_only_becomes_lighter_and_clearer_towards_the_peak() -> None:
    pixels = heat_pixels([[0, 64, 128, 192, PEAK]] * 2).astype(float)
    luminance = pixels[:, :, :3] @ np.array([0.2126, 0.7152, 0.0722])
    middle = luminance[len(luminance) // 2]
    assert all(after >= before - 1 for before, after in itertools.pairwise(middle))
    assert middle[-1] > 3 * middle[0]
    assert pixels[0, 0, 3] > pixels[0, -1, 3] > 0


def test_a_heat_layer_covers_the_picture_whatever_its_shape() -> None:
    layer = str(heat_layer([[0, PEAK], [0, 0]], peak=(30, 2), width=40, height=20))
    assert 'viewBox="0 0 40 20"' in layer
    assert 'preserveAspectRatio="none"' in layer


def test_a_painted_picture_keeps_its_size_and_glows_at_the_peak() -> None:
    file, grey = io.BytesIO(), Image.new("RGB", (60, 40), (90, 90, 90))
    grey.save(file, "PNG")
    with Image.open(io.BytesIO(painted(file.getvalue(), [[0, 0], [0, PEAK]], peak=(50, 30)))) as shown:
        assert shown.size == (60, 40)
        dark, bright = (sum(shown.getpixel(place)) for place in ((3, 3), (57, 37)))  # type: ignore[arg-type]
    assert dark < 3 * 90 < bright


def test_a_page_of_both_kinds_of_evaluation_keeps_them_apart(
    tmp_path: Path, annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    evaluation("vqa", annotated("questions", questions()), ranked, metrics={"vqa_accuracy": 47.5})
    recall = tmp_path / "evaluations" / "zero_shot"
    recall.mkdir()
    names = [f"{way}_r{depth}" for way in ("text_to_image", "image_to_text") for depth in (1, 5, 10)]
    (recall / "scores.json").write_text(json.dumps({"metrics": dict.fromkeys(names, 61.7), "images": 6, "texts": 12}))
    config = ReportConfig.model_validate({"run": str(tmp_path / "evaluations"), "predictions": 2})
    page = build_page(find((), (str(tmp_path / "evaluations"),)), config)
    assert page.count("<h2>Retrieval</h2>") == 1
    assert page.count("Answers to questions · Vqa") == 1
    assert "Vqa, re-ranked" not in page


def test_a_page_of_answers_alone_begins_with_their_score_and_the_best_guess(
    tmp_path: Path, annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    scores = {"constant": 24.0, "vqa_accuracy": 47.5, "constant_by_type": 34.1}
    evaluation("vqa", annotated("questions", questions()), ranked, metrics=scores)
    run = str(tmp_path / "evaluations")
    page = build_page(find((), (run,)), ReportConfig(run=run))
    assert "<dt>accuracy, Vqa; by guessing 34.1 %</dt><dd>47.5 %</dd>" in page


def test_of_expressions_the_boxes_that_were_found_are_told_first_beside_the_better_guess(
    annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    scores = {"pointing/all": 19.8, "found/val": 40.0, "found/all": 44.7, "largest/all": 10.7}
    chance = {"pointing/all": 8.5, "found/all": 23.3}
    scored = evaluation("grounding", annotated("questions", questions()), mapped, metrics=scores, chance=chance)
    assert headline(scored) == ("44.7 %", "chosen box overlaps by a half, Grounding; by guessing 23.3 %")
    unboxed = replace(scored, metrics={"pointing/all": 19.8})
    assert headline(unboxed) == ("19.8 %", "peak in the true box, Grounding; by guessing 8.5 %")


def test_a_page_that_has_no_figures_has_no_frame_for_them(
    tmp_path: Path, annotated: Callable[..., Dataset], evaluation: Callable[..., Evaluation]
) -> None:
    evaluation("vqa", annotated("questions", questions()), ranked, metrics={})
    run = str(tmp_path / "evaluations")
    assert 'class="figures"' not in build_page(find((), (run,)), ReportConfig(run=run))


def test_a_run_that_is_nowhere_is_told_from_a_folder_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        find((), (str(tmp_path / "nowhere"),))
    with pytest.raises(InputError, match=r"holds no dataset\.json"):
        find((), (str(tmp_path),))
