"""The report: a page that holds together whatever it is given, escapes what it shows, and needs no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from jobs.cli import main
from jobs.report.curves import Curve, ticks
from jobs.report.findings import Retrieval, find
from jobs.report.markup import tag
from jobs.report.page import ReportConfig, write_report
from jobs.report.pictures import picture_uri
from jobs.report.rejects import REASONS
from jobs.report.run_sections import choose_retrievals
from jobs.report.search_section import SCRIPT
from shards.errors import ConfigError, InputError
from shards.manifest import merge
from shards.reader import open_dataset
from shards.records import Caption, Media, Origin, Record, Reject, RejectReason
from shards.sidecar import write_sidecar
from shards.stores import open_storage
from shards.writer import ShardWriter

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = 'A <b>bold</b> & "quoted" caption </script><script>alert(1)</script> ' + "longword" * 30


def jpeg(number: int) -> bytes:
    from PIL import Image

    colours = np.random.default_rng(number).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((90, 60)).save(buffer, format="JPEG")
    return buffer.getvalue()


def write_dataset(folder: Path, *, records: int = 6, concepts: bool = True) -> Path:
    storage = open_storage(folder)
    with ShardWriter(storage, dataset="tiny", split="test", unit="u0", unit_index=0, config_digest="c0") as writer:
        for number in range(records):
            texts = (NASTY if number == 0 else f"Picture number {number}.", f"Said otherwise, {number}.")
            writer.add(
                Record(
                    key=f"tiny-test-{number}",
                    origin=Origin(dataset="tiny", split="test", id=str(number)),
                    media=(Media(member="jpg", kind="image", width=90, height=60),),
                    annotations=tuple(Caption(text=text) for text in texts),
                    payload={"jpg": jpeg(number)},
                )
            )
        writer.reject(Reject(id="raw<77>", reason="truncated_media", detail="the JPEG ends after 12 bytes"))
        writer.commit(raw_items=records + 1, raw_annotations=2 * records)
    merge(
        storage, name="tiny", split="test", config={"source": {"kind": "x"}}, config_digest="c0", expected_units=["u0"]
    )
    if concepts:
        dataset = open_dataset(folder)
        keys = [f"tiny-test-{number}" for number in range(records)]
        values = pa.table(
            {
                "phrases": pa.array([["dog", "grass & sky"]] * records, pa.list_(pa.string())),
                "scores": pa.array([[0.31, 0.25]] * records, pa.list_(pa.float32())),
            }
        )
        shard = dataset.manifest[0].name
        write_sidecar(
            storage, column="concepts", digest8="abcd1234", shard=shard, keys=keys, values=values, card={"top_k": 2}
        )
    return folder


def write_run(folder: Path, *, kind: str = "pretraining", init: str | None = None) -> Path:
    folder.mkdir(parents=True)
    config = {"task": {"kind": kind}, "batch_size": 4, "init": init, "seed": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [
        {"step": step, "name": name, "value": start / step}
        for step in (1, 2, 4, 8)
        for name, start in (("loss", 8.0), ("loss/contrast", 4.0), ("lr", 1e-4))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "na')
    return folder


def write_evaluation(folder: Path, *, r1: float, checkpoint: str = "") -> Path:
    folder.mkdir(parents=True)
    names = [f"{way}_r{depth}" for way in ("text_to_image", "image_to_text") for depth in (1, 5, 10)]
    scores = {
        "metrics": dict.fromkeys(names, r1),
        "chance": dict.fromkeys(names, 16.7),
        "cosine": dict.fromkeys(names, r1 / 2),
        "images": 6,
        "texts": 12,
        "checkpoint": checkpoint,
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    rows = [
        {
            "direction": "text_to_image",
            "query": {"key": f"tiny-test-{number}", "annotation": 0, "text": f"Picture number {number}."},
            "truth": [f"tiny-test-{number}"],
            "rank": number % 3,
            "ranked": [{"key": f"tiny-test-{(number - number % 3 + i) % 6}", "score": 2.0 - i} for i in range(4)],
        }
        for number in range(6)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """A folder with everything that a page can tell of, as a demo leaves it."""
    root = tmp_path / "flow"
    write_dataset(root / "data" / "test")
    write_run(root / "pretrain")
    write_run(root / "finetune", kind="retrieval", init="pretrain")
    write_evaluation(root / "zero_shot", r1=30.0)
    write_evaluation(root / "fine_tuned", r1=61.7)
    step = {
        "name": "raw",
        "title": "Write",
        "command": "python -m jobs demo until=raw",
        "seconds": 2.5,
        "peak_mib": 80.0,
    }
    (root / "timings.json").write_text(json.dumps({"steps": [step | {"digest": "0"}]}))
    return root


class Page(HTMLParser):
    """The parts of a page that the tests look at; complains of elements that do not close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.headings: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("img", "input", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)


def test_a_whole_flow_gives_one_page_with_every_part(flow: Path, tmp_path: Path) -> None:
    page = Page(write_report(ReportConfig(run=str(flow), output=str(tmp_path / "deep" / "page.html"))))
    text = " ".join(page.text)
    for heading in ("Retrieval", "Pictures, captions and concepts", "Training", "Data", "Rejects", "Time and memory"):
        assert heading in page.headings
    assert page.headings.index("Pretraining") < page.headings.index("Fine-tuning for retrieval")
    for fact in ("raw<77>", "truncated_media", "grass & sky", "0.31", "61.7", "16.7", "Fine tuned, re-ranked", "2.5 s"):
        assert fact in text
    assert all(image["alt"] and image["src"] and image["src"].startswith("data:image/") for image in page.images)
    assert page.tags.count("h1") == 1


def test_the_page_refers_to_nothing_outside_itself(flow: Path, tmp_path: Path) -> None:
    page = Page(write_report(ReportConfig(run=str(flow), output=str(tmp_path / "page.html"))))
    links = [value or "" for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|url\(", page.source)


def test_the_only_script_is_that_of_the_search_and_the_browser_is_told_to_run_no_other(
    flow: Path, tmp_path: Path
) -> None:
    page = Page(write_report(ReportConfig(run=str(flow), output=str(tmp_path / "page.html"))))
    script = SCRIPT.read_text(encoding="utf-8")
    assert page.tags.count("script") == 1
    assert f"<script>{script}</script>" in page.source
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in page.source
    silent = Page(write_report(ReportConfig(run=str(flow), searchable=0, output=str(tmp_path / "silent.html"))))
    assert "script" not in silent.tags
    assert "script-src &#x27;none&#x27;" in silent.source


def test_a_caption_with_markup_in_it_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "tiny")
    page = Page(write_report(ReportConfig(dataset=str(dataset), output=str(tmp_path / "page.html"))))
    assert NASTY in "".join(page.text)
    assert "<script>alert" not in page.source


def test_a_dataset_alone_and_a_run_alone_give_a_page_without_empty_parts(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "tiny", concepts=False)
    alone = Page(write_report(ReportConfig(dataset=str(dataset), output=str(tmp_path / "dataset.html"))))
    assert "Pictures and captions" in alone.headings
    assert "Training" not in alone.headings
    run = Page(write_report(ReportConfig(run=str(write_run(tmp_path / "run")), output=str(tmp_path / "run.html"))))
    assert "Training" in run.headings
    assert "Data" not in run.headings
    assert "Contrast" in " ".join(run.text)


def test_nothing_to_report_on_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name dataset=FOLDER"):
        write_report(ReportConfig(output=str(tmp_path / "page.html")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no dataset"):
        write_report(ReportConfig(run=str(tmp_path / "empty"), output=str(tmp_path / "page.html")))
    assert not (tmp_path / "page.html").exists()


def test_the_command_prints_where_the_page_is(flow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["report", f"run={flow}", f"output={page}"]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert page.is_file()


def test_an_evaluation_without_pictures_at_hand_still_names_its_retrievals(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "scores", r1=50.0)
    page = Page(write_report(ReportConfig(run=str(folder), output=str(tmp_path / "page.html"))))
    assert "Picture number 0." in " ".join(page.text)
    assert page.images == []


def test_the_best_retrievals_lead_widest_and_the_worst_rank_lowest() -> None:
    def query(number: int, rank: int, lead: float) -> Retrieval:
        return Retrieval(
            direction="text_to_image",
            query_key=str(number),
            query_text=f"text {number}",
            truth=(f"picture {number // 2}",),
            rank=rank,
            ranked=(("a", lead), ("b", 0.0)),
        )

    queries = [
        query(0, 0, 1.0),
        query(1, 0, 3.0),
        query(2, 0, 2.0),
        query(3, 7, 1.0),
        query(4, 9, 1.0),
        query(5, 1, 1.0),
    ]
    best, worst = choose_retrievals(queries, 2)
    assert [q.query_key for q in best] == ["1", "2"]  # the second text of picture 0 is left out
    assert [q.query_key for q in worst] == ["4", "3"]


def test_a_run_that_is_being_written_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    run = find([], [str(write_run(tmp_path / "run"))]).runs[0]
    loss = next(curve for curve in run.curves if curve.name == "loss")
    assert loss.steps == (1, 2, 4, 8)
    assert loss.values == (8.0, 4.0, 2.0, 1.0)


def test_evaluations_come_in_the_order_of_the_runs_they_score_even_where_the_later_is_worse(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a_run")
    second = write_run(tmp_path / "b_run", kind="retrieval", init="a_run")
    write_evaluation(tmp_path / "later", r1=20.0, checkpoint=str(second / "checkpoints" / "step-00000008"))
    write_evaluation(tmp_path / "zero", r1=40.0, checkpoint=str(first / "checkpoints" / "step-00000008"))
    assert [found.path.name for found in find([], [str(tmp_path)]).evaluations] == ["zero", "later"]


def test_smoothing_keeps_a_constant_and_lies_between_the_extremes() -> None:
    flat = Curve(name="x", steps=tuple(range(100)), values=(2.5,) * 100)
    assert flat.smoothed == pytest.approx(flat.values)
    noisy = np.random.default_rng(0).normal(size=300)
    curve = Curve(name="x", steps=tuple(range(300)), values=tuple(noisy))
    assert np.std(curve.smoothed) < 0.5 * np.std(noisy)
    assert min(noisy) < min(curve.smoothed) <= max(curve.smoothed) < max(noisy)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.43, 6.71), (-2.0, 3.0), (1e-6, 4e-6), (812.0, 905.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    levels = ticks(low, high)
    assert 2 <= len(levels) <= 5
    assert all(low - 1e-9 <= level <= high + 1e-9 for level in levels)
    steps = np.diff(levels)
    assert np.allclose(steps, steps[0])


def test_a_curve_of_one_point_can_be_drawn(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text(
        '{"step": 5, "name": "loss", "value": 2.0}\n{"step": 6, "name": "loss", "value": NaN}\n'
    )
    page = Page(write_report(ReportConfig(run=str(run), output=str(tmp_path / "page.html"))))
    assert "nan" not in page.source.lower().replace("finan", "")
    assert "svg" in page.tags


def test_every_reject_reason_is_explained() -> None:
    assert set(REASONS) == set(RejectReason.__args__)  # type: ignore[attr-defined]


def test_attributes_and_text_are_escaped() -> None:
    assert tag("p", "a < b", class_='x"y') == '<p class="x&quot;y">a &lt; b</p>'
    assert tag("p", tag("b", "&"), None, hidden=False, lang=None) == "<p><b>&amp;</b></p>"


def test_a_turned_photo_is_shown_upright_and_small() -> None:
    from PIL import Image

    photo = Image.new("RGB", (900, 600), (200, 30, 30))
    exif = photo.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photo.save(buffer, format="JPEG", exif=exif)
    uri = picture_uri(buffer.getvalue(), where="photo")
    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as shown:
        assert shown.size == (171, 256)
    assert picture_uri(b"no picture", where="page") is None


@pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium), so no page is rendered"
)
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_errors_or_sideways_scrolling(flow: Path, tmp_path: Path, width: int) -> None:
    page = write_report(ReportConfig(run=str(flow), output=str(tmp_path / "page.html")))
    # A frame has the width of a phone, which headless Chromium's own window cannot take; the probe reads it from outside.
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="{page.name}" style="width:{width}px;height:900px;border:0"></iframe><p id="r"></p><script>'
        "onload = () => { const d = document.getElementById('f').contentDocument; "
        "const wide = [...d.querySelectorAll('body *')].filter(e => !e.closest('pre') && "
        "e.getBoundingClientRect().right > d.documentElement.clientWidth + 1).map(e => e.tagName + '.' + e.className); "
        "document.getElementById('r').textContent = JSON.stringify({scroll: d.documentElement.scrollWidth, "
        "width: d.documentElement.clientWidth, height: d.documentElement.scrollHeight, wide, "
        "images: [...d.images].filter(i => (i.loading = 'eager', !i.src.startsWith('data:'))).length}) + '#'; };</script>"
    )
    assert CHROMIUM is not None
    result = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run", "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=3000",
            "--window-size=1400,1000", "--dump-dom", probe.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    found = re.search(r'<p id="r">(\{.*?\})#</p>', result.stdout)
    assert found, result.stderr[-2000:]
    measured = json.loads(found[1])
    assert measured["wide"] == []
    assert measured["scroll"] <= measured["width"] <= width
    assert measured["height"] > 1500
    assert measured["images"] == 0


def measured(*, all_objectives: tuple[float, float], three_objectives: tuple[float, float]) -> dict[str, object]:
    """What the benchmark prints, for two seeds whose every recall is the given number."""
    metrics = ("text_to_image_r1", "image_to_text_r1", "r_mean")

    def summary(values: tuple[float, float]) -> dict[str, dict[str, dict[str, float]]]:
        spread = {"mean": sum(values) / 2, "sd": 0.0, "min": min(values), "max": max(values)}
        return {score: dict.fromkeys(metrics, spread) for score in ("cosine", "reranked")}

    differences = (all_objectives[0] - three_objectives[0], all_objectives[1] - three_objectives[1])
    runs = {"0": {"steps": 70}, "1": {"steps": 70}}
    return {
        "equal": "steps", "preset": "vicha_small", "train": {"records": 30}, "test": {"records": 1234},
        "variants": {
            "all_objectives": {"seeds": runs, "summary": summary(all_objectives)},
            "three_objectives": {"seeds": runs, "summary": summary(three_objectives)},
        },
        "differences": {"three_objectives": summary(differences)},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("better", "says"),
    [
        ((50.0, 52.0), "every seed is worse than with all"),
        ((30.0, 32.0), "every seed is better than with all"),
        ((50.0, 32.0), "the seeds or scores disagree"),
    ],
)
def test_the_ablation_is_told_as_measured_whatever_it_says(
    better: tuple[float, float], says: str, tmp_path: Path
) -> None:
    file = tmp_path / "ablation.json"
    file.write_text(json.dumps(measured(all_objectives=better, three_objectives=(40.0, 41.0))))
    dataset = write_dataset(tmp_path / "d")
    page = tmp_path / "page.html"
    assert main(["report", f"dataset={dataset}", f"ablation={file}", f"output={page}"]) == 0
    text = page.read_text()
    assert says in text
    assert "70 steps of vicha_small" in text
    seen = re.sub(r"<[^>]+>", "", text)
    assert f"{sum(better) / 2:.1f} [{min(better):.1f} to {max(better):.1f}]" in seen
    gains = better[0] - 40.0, better[1] - 41.0
    assert f"[{min(gains):+.1f} to {max(gains):+.1f}]".replace("-", "−") in seen


def test_a_dry_run_says_what_the_page_would_tell_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_dataset(tmp_path / "d")
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert main(["report", f"dataset={dataset}", f"output={page}", "--dry-run"]) == 0
    assert f"would tell of 1 dataset, 0 runs, 0 evaluations -> {page}" in capsys.readouterr().out
    assert not page.exists()


def test_a_file_that_is_no_ablation_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("{}")
    with pytest.raises(InputError, match=r"not what `python -m benchmarks\.ablation` prints"):
        write_report(ReportConfig(dataset=str(write_dataset(tmp_path / "d")), ablation=str(file)))
