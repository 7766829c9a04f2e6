"""A media folder gives out what lies in it, and nothing else, whatever an annotation file asks for."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from pipelines.media_folder import MediaFolder, NamedFiles, is_remote
from shards.errors import InputError
from shards.media import MediaProblem


@pytest.fixture
def folder(tmp_path: Path) -> MediaFolder:
    (tmp_path / "media" / "below").mkdir(parents=True)
    (tmp_path / "media" / "below" / "a.jpg").write_bytes(b"inside")
    (tmp_path / "secret.txt").write_bytes(b"outside")
    return MediaFolder(str(tmp_path / "media"))


def reason(folder: MediaFolder, file: str) -> str:
    with pytest.raises(MediaProblem) as problem:
        folder.read(file)
    return problem.value.reason


def test_a_file_below_the_folder_is_read_by_any_spelling_of_its_way(folder: MediaFolder) -> None:
    for name in ("below/a.jpg", "./below//a.jpg", "below/../below/a.jpg"):
        assert folder.read(name) == b"inside"
        assert folder.size(name) == len(b"inside")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_in_another_spelling_of_unicode_or_with_backslashes_is_found(
    folder: MediaFolder, tmp_path: Path, form: Literal["NFC", "NFD"]
) -> None:
    (tmp_path / "media" / "below" / unicodedata.normalize(form, "Växjö.jpg")).write_bytes(b"town")
    for name in ("below/Växjö.jpg", "below/Va\u0308xjo\u0308.jpg", "below\\Växjö.jpg", "below\\a.jpg"):
        assert folder.size(name) == len(folder.read(name))
    assert reason(folder, "below\\Östersund.jpg") == "missing_media"
    for name in ("..\\secret.txt", "\\secret.txt"):
        assert reason(folder, name) == "missing_media"
        assert folder.size(name) is None


def test_a_way_out_is_refused_before_anything_is_read(folder: MediaFolder, tmp_path: Path) -> None:
    for name in ("../secret.txt", "below/../../secret.txt", str(tmp_path / "secret.txt"), "..", "."):
        assert reason(folder, name) == "outside_media"
        assert folder.size(name) is None


def test_a_folder_beside_it_with_the_same_beginning_is_outside(folder: MediaFolder, tmp_path: Path) -> None:
    (tmp_path / "media2").mkdir()
    (tmp_path / "media2" / "a.jpg").write_bytes(b"x")
    assert reason(folder, "../media2/a.jpg") == "outside_media"


def test_a_link_that_leads_out_is_followed_only_on_demand(folder: MediaFolder, tmp_path: Path) -> None:
    (tmp_path / "media" / "link.jpg").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(b"far")
    (tmp_path / "media" / "far").symlink_to(tmp_path / "elsewhere")
    for name in ("link.jpg", "far/b.jpg"):
        assert reason(folder, name) == "outside_media"
    willing = MediaFolder(folder.root, follow_links=True)
    assert (willing.read("link.jpg"), willing.read("far/b.jpg")) == (b"outside", b"far")


def test_a_link_that_stays_inside_is_a_file_like_any_other(folder: MediaFolder, tmp_path: Path) -> None:
    (tmp_path / "media" / "again.jpg").symlink_to(tmp_path / "media" / "below" / "a.jpg")
    assert folder.read("again.jpg") == b"inside"


@pytest.mark.parametrize("name", ["no.jpg", "below/a.jpg/b.jpg", "nul\0.jpg", "x" * 400])
def test_what_is_not_there_is_missing(folder: MediaFolder, name: str) -> None:
    assert reason(folder, name) == "missing_media"
    assert folder.size(name) is None


@pytest.mark.timeout(20)
def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_no_media_and_nobody_waits_for_it(
    folder: MediaFolder, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "media" / "pipe.jpg")
    assert reason(folder, "pipe.jpg") == "not_media"
    assert reason(folder, "below") == "not_media"


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "a/../../x", "s3://other/x.jpg"])
def test_a_remote_folder_refuses_ways_out_as_well(name: str) -> None:
    assert reason(MediaFolder("memory://bucket/media"), name) == "outside_media"


def test_a_wrong_folder_shows_by_a_sample_of_the_names_that_are_looked_for(folder: MediaFolder) -> None:
    names = NamedFiles(folder)
    for number in range(5000):
        names.note(f"{number}.jpg")
    with pytest.raises(InputError, match=r"looked for 0\.jpg"):
        names.check(annotations="captions.json")
    good = NamedFiles(folder)
    good.note("below/a.jpg")
    for number in range(20):
        good.note(f"{number}.jpg")
    good.check(annotations="captions.json")


def test_a_folder_of_links_that_lead_out_names_the_key_that_allows_them(folder: MediaFolder, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "media" / f"{number}.jpg").symlink_to(tmp_path / "secret.txt")
    names, willing = NamedFiles(folder), NamedFiles(MediaFolder(folder.root, follow_links=True))
    for number in range(3):
        names.note(f"{number}.jpg")
        willing.note(f"{number}.jpg")
    with pytest.raises(InputError, match=r"such as 0\.jpg\); allow them with source\.follow_links=true"):
        names.check(annotations="captions.json")
    willing.check(annotations="captions.json")


@pytest.mark.parametrize(("place", "remote"), [("http://x/a.jpg", True), ("HTTPS://x", True), ("a/http.jpg", False)])
def test_urls_are_told_from_names(place: str, remote: bool) -> None:
    assert is_remote(place) is remote
