"""The search of a page: by words and their beginnings, together, best first; what is not there, keys, and no foreign script."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.report.learned import LearnedColumns
from jobs.report.page import ReportConfig, write_report
from jobs.report.room import Room
from jobs.report.search_section import FIRST, search_section
from tests.jobs.report.columns import NASTY, captioned

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ASKED = ("", "dog", "DO", "grass dog", "café", "cafe", "zebar", "dog zebra", "nothingatall", "犬", "(", NASTY)
PROBE = """
<iframe id="f" src="page.html" style="width:390px;height:900px;border:0"></iframe><p id="r"></p><script>
onload = () => {
  const view = document.getElementById("f").contentWindow, d = view.document, box = d.querySelector(".find input");
  const shown = () => [...d.querySelectorAll(".found li")].filter((item) => !item.hidden);
  const ask = (text) => {
    box.value = text;
    box.dispatchEvent(new view.Event("input"));
    return {
      keys: shown().map((item) => item.querySelector("img").alt),
      because: shown().map((item) => item.querySelector(".because").textContent),
      told: d.querySelector(".told").textContent,
      hints: [...d.querySelectorAll(".hints button")].map((button) => button.textContent),
      focus: "",
    };
  };
  const answers = Object.fromEntries(ASKED.map((text) => [text, ask(text)]));
  const press = (target, key) => target.dispatchEvent(new view.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  ask("");
  d.querySelector(".more").click();
  const all = shown().length;
  ask("dog");
  press(d.body, "/");
  const slash = d.activeElement === box;
  press(box, "Enter");
  const entered = d.activeElement.tagName;
  press(box, "Escape");
  ask("zebar");
  d.querySelector(".hints button").click();
  const wide = [...d.querySelectorAll(".find *")].filter((e) => e.getBoundingClientRect().right > 391).length;
  document.getElementById("r").textContent =
    JSON.stringify({ answers, all, slash, entered, after: box.value, clicked: shown().length, wide }) + "#";
};</script>
"""


def test_copies_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    dataset = captioned(tmp_path / "d", concepts=[["dog"]] * 6)
    columns = LearnedColumns(dataset, concepts="concepts")

    def section(left: int, pictures: int = 6) -> str:
        return search_section(dataset, columns, pictures=pictures, room=Room(left=left), name="find") or ""

    whole = section(1_000_000)
    assert whole.count("<li ") == 6
    assert 0 < section(len(whole) // 2).count("<li ") < 6
    assert "3 pictures of the 6" in section(1_000_000, pictures=3)
    assert section(10) == ""


def test_without_concepts_there_is_no_search(tmp_path: Path) -> None:
    dataset = captioned(tmp_path / "d", concepts=[[]])
    for name in ("concepts", "others"):
        columns = LearnedColumns(dataset, concepts=name)
        assert search_section(dataset, columns, pictures=6, room=Room(left=1_000_000), name="find") is None


@pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium), so no page is rendered"
)
def test_pictures_are_found_by_concept_in_a_browser_without_network(tmp_path: Path) -> None:
    concepts = [
        ["doghouse", "grass"],  # begins like dog
        ["grass", "dog"],
        ["dog", "beach"],
        ["café", "犬小屋"],
        ["zebra", "hot dog"],
        [NASTY],
        *[["filler"]] * FIRST,
    ]
    dataset = captioned(tmp_path / "d", concepts=concepts)
    write_report(ReportConfig(dataset=dataset.path, output=str(tmp_path / "page.html")))
    (tmp_path / "probe.html").write_text(PROBE.replace("ASKED", json.dumps(ASKED).replace("</", "<\\/")))
    found = _look(tmp_path / "probe.html", tmp_path)
    answers = found["answers"]

    def places(asked: str) -> list[int]:
        return [int(re.findall(r"\d+", alt)[0]) for alt in answers[asked]["keys"]]

    assert places("") == list(range(FIRST))
    assert found["all"] == len(concepts)
    assert places("dog") == [2, 1, 4, 0]  # whole words before beginnings, then the likelier
    assert answers["dog"]["because"] == ["dog 0.50", "dog 0.49", "hot dog 0.49", "doghouse 0.50"]
    assert places("DO") == [0, 2, 1, 4]
    assert places("grass dog") == [1, 0]
    assert answers["grass dog"]["because"][0] == "grass 0.50 · dog 0.49"
    assert places("café") == places("cafe") == places("犬") == [3]
    assert places("zebar") == []
    assert answers["zebar"]["hints"] == ["zebra"]
    assert places("dog zebra") == [4]
    assert places("nothingatall") == places("(") == []
    assert answers["nothingatall"]["told"].startswith(f"None of the {len(concepts)} pictures")
    assert answers["nothingatall"]["hints"][0] == "filler"
    assert places(NASTY) == [5]
    assert (found["slash"], found["entered"]) == (True, "SUMMARY")
    assert (found["after"], found["clicked"]) == ("zebra", 1)
    assert found["wide"] == 0


def _look(page: Path, folder: Path) -> dict[str, Any]:
    assert CHROMIUM is not None
    result = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run", "--allow-file-access-from-files",
            f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=3000",
            "--window-size=1400,1000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'<p id="r">(\{.*?\})#</p>', result.stdout, re.DOTALL)
    assert found, result.stderr[-2000:]
    told: dict[str, Any] = json.loads(html.unescape(found[1]))
    return told
