"""Galleries and whole pages over every modality: within the budget, with attached annotations, without an error in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.report.gallery import gallery_section
from jobs.report.learned import LearnedColumns
from jobs.report.page import ReportConfig, write_report
from jobs.report.room import Room
from shards.annotations import close_ledger, part_table
from shards.columns import write_sidecar
from shards.reader import Dataset
from shards.records import Answer, Media, Question, Reject
from tests.jobs.report.modalities import Kind, kinds, picture, write_kind

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def gallery(dataset: Dataset, *, left: int = 1_000_000, records: int = 12) -> str:
    columns = LearnedColumns(dataset, concepts="concepts")
    return gallery_section(dataset, records=records, columns=columns, agreements={}, room=Room(left=left)) or ""


def attach_questions(dataset: Dataset) -> None:
    """A column of one question on the second record, and one reject, as `annotate` leaves it."""
    name, keys = dataset.manifest[0].name, dataset.index(0).keys
    asked = Question(question="Who was attached?", answers=(Answer(text="nobody", weight=1.0),))
    values = part_table([[asked] if key == keys[1] else [] for key in keys], [[] for _ in keys])
    card = {"kind": "annotations", "manifest": dataset.digest}
    write_sidecar(dataset.storage, column="vqa", digest8="0a1b2c3d", shard=name, keys=keys, values=values, card=card)
    close_ledger(
        dataset.storage,
        "sidecars/vqa-0a1b2c3d",
        shards=[name],
        raw_items=2,
        raw_annotations=3,
        unmatched=[Reject(id="nowhere", reason="missing_media", detail="no record holds it", annotations=2)],
    )


@pytest.mark.parametrize(
    ("name", "heading"),
    {
        "captions": "Pictures and captions",
        "objects": "Pictures and objects",
        "clips": "Clips and captions",
        "sounds": "Sounds and labels",
        "texts": "Texts",
        "regions": "Region features and captions",
    }.items(),
)
def test_a_gallery_is_named_for_what_it_shows(tmp_path: Path, name: str, heading: str) -> None:
    assert f"<h2>{heading}</h2>" in gallery(write_kind(tmp_path / name, kinds()[name]))


def test_cards_that_do_not_fit_are_left_out_and_the_page_says_so(tmp_path: Path) -> None:
    dataset = write_kind(tmp_path / "tight", kinds()["texts"], records=10)
    one = len(gallery(dataset, records=1))
    tight = gallery(dataset, left=3 * one // 2)
    assert 1 <= tight.count("<article") < 10
    assert "10 were asked for" in tight
    assert gallery(dataset).count("<article") == 10
    assert gallery(dataset, left=0) == ""


def test_a_damaged_record_is_left_out_and_counted(tmp_path: Path) -> None:
    dataset = write_kind(tmp_path / "flipped", kinds()["texts"])
    shard = next((tmp_path / "flipped" / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[dataset.index(0).members(1)[0][1] + 20] ^= 1
    shard.write_bytes(data)
    shown = gallery(dataset)
    assert shown.count("<article") == 2
    assert "1 more could not be read" in shown
    assert "budget" not in shown


def test_a_dataset_with_a_lost_shard_still_has_a_page_that_names_it(tmp_path: Path) -> None:
    dataset = write_kind(tmp_path / "lost", kinds()["texts"])
    shard = next((tmp_path / "lost" / "shards").iterdir())
    shard.unlink()
    assert gallery(dataset) == ""
    page = write_report(ReportConfig(dataset=str(tmp_path / "lost"), output=str(tmp_path / "page.html")))
    assert f"{shard.name} is missing" in page.read_text()


def test_a_page_of_heavy_pictures_keeps_within_its_budget(tmp_path: Path) -> None:
    heavy = Kind(
        media=(Media(member="jpg", kind="image", width=500, height=500),),
        payload={"jpg": picture(500, 500, noise=True)},
        annotations=kinds()["objects"].annotations,
    )
    folders = [str(write_kind(tmp_path / name, heavy, records=12).path) for name in ("one", "two")]
    sizes = {}
    for budget in (1.0, 2.5):
        config = ReportConfig(dataset=tuple(folders), records=12, page_mib=budget, output=str(tmp_path / "page.html"))
        page = write_report(config).read_text()
        sizes[budget] = len(page)
        assert len(page.encode()) <= budget * 2**20
        assert page.count("<article") == 24  # smaller pictures rather than fewer
    assert sizes[2.5] > 1.5 * sizes[1.0]


def test_attached_annotations_are_shown_on_the_pictures_that_have_them_with_their_ledger_and_rejects(
    tmp_path: Path,
) -> None:
    dataset = write_kind(tmp_path / "photos", kinds()["captions"])
    attach_questions(dataset)
    page = write_report(ReportConfig(dataset=dataset.path, output=str(tmp_path / "page.html"))).read_text()
    attached = page[page.index("attached by vqa-0a1b2c3d</h2>") :]
    attached = attached[: attached.index("</section>")]
    assert attached.count("<article") == 1
    assert "photos-test-001" in attached
    assert "Who was attached?" in attached
    assert "2 raw items in, 1 found their picture here. 3 raw annotations in = 1 attached to 1 records" in page
    assert "no record holds it" in page
    assert "NOT close" not in page


@pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium), so no page is rendered"
)
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_plays_clips_and_sounds_and_shows_every_modality_without_errors(tmp_path: Path, width: int) -> None:
    pytest.importorskip("av", reason="PyAV is not installed (extra `video`)")
    folders = tuple(str(write_kind(tmp_path / name, kind).path) for name, kind in kinds().items())
    page = write_report(ReportConfig(dataset=folders, output=str(tmp_path / "page.html")))
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="{page.name}" style="width:{width}px;height:900px;border:0"></iframe><p id="r"></p><script>'
        "onload = async () => { const d = document.getElementById('f').contentDocument; "
        "const media = [...d.querySelectorAll('video, audio')]; "
        "await Promise.all(media.map(m => m.readyState > 0 || m.error || new Promise(r => { "
        "m.onloadedmetadata = m.onerror = r; m.load(); }))); "
        "const images = [...d.images]; await Promise.all(images.map(i => (i.loading = 'eager', i.decode()))); "
        "const wide = [...d.querySelectorAll('body *')].filter(e => !e.closest('pre') && "
        "e.getBoundingClientRect().right > d.documentElement.clientWidth + 1).map(e => e.tagName + '.' + e.className); "
        "const frame = (e) => { const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; }; "
        "document.getElementById('r').textContent = JSON.stringify({wide, broken: images.filter(i => !i.naturalWidth).length, "
        "durations: media.map(m => m.duration), "
        "apart: [...d.querySelectorAll('.boxed img')].flatMap("
        "i => frame(i).map((n, k) => Math.abs(n - frame(i.nextSibling)[k]))), "
        "letters: [...d.querySelectorAll('.overlay text')].map(t => t.getBoundingClientRect().height)}) + '#'; };</script>"
    )
    assert CHROMIUM is not None
    result = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run", "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=8000",
            "--window-size=1400,1000", "--dump-dom", probe.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'<p id="r">(\{.*?\})#</p>', result.stdout)
    assert found, result.stderr[-2000:]
    seen = json.loads(found[1])
    assert seen["wide"] == []
    assert seen["broken"] == 0
    assert len(seen["durations"]) == 6  # three clips and three sounds
    assert all(0.4 < (duration or 0) < 1.2 for duration in seen["durations"])
    assert max(seen["apart"]) < 1.5  # the boxes lie exactly over their picture
    assert min(seen["letters"]) > 9  # CSS pixels: readable
