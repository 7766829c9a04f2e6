"""`python -m jobs index`: other people's tars become a dataset that every other verb takes."""

from __future__ import annotations

import importlib
import io
import tarfile
from pathlib import Path

import pytest

from jobs.cli import load_verb, main
from jobs.config import load_config, preset_names, read_preset
from pipelines.annotate import AnnotateConfig
from shards.reader import open_dataset


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Four tars of three captioned pictures each, with names that repeat in every tar."""
    from PIL import Image

    folder = tmp_path / "theirs"
    folder.mkdir()
    for shard in range(4):
        with tarfile.open(folder / f"part-{shard:03d}.tar", "w") as tar:
            for number in range(3):
                data = io.BytesIO()
                Image.new("RGB", (16, 16), (60 * shard, 80 * number, 0)).save(data, "JPEG")
                for ending, content in (("jpg", data.getvalue()), ("txt", f"picture {shard} {number}".encode())):
                    info = tarfile.TarInfo(f"{number:05d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_tars_are_planned_indexed_verified_and_shown(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "indexed"
    words = ["index", f"shards={tars}/part-{{000..003}}.tar", f"output={output}", "name=theirs"]
    assert main([*words, "--dry-run"]) == 0
    assert "4 tars (4 left)" in capsys.readouterr().out
    assert not output.exists()
    assert main(words) == 0
    assert "12 records, 12 annotations in 4 tars" in capsys.readouterr().out
    assert main(["verify", f"dataset={output}"]) == 0
    assert main(["report", f"dataset={output}", f"output={tmp_path / 'page.html'}"]) == 0
    assert len(open_dataset(output)) == 12


def test_a_byte_that_flips_in_a_foreign_tar_is_named_by_verify(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "indexed"
    assert main(["index", f"shards={tars}/*.tar", f"output={output}"]) == 0
    tar = tars / "part-002.tar"
    with tarfile.open(tar) as archive:
        place = archive.getmembers()[2].offset_data + 20
    data = bytearray(tar.read_bytes())
    data[place] ^= 8
    tar.write_bytes(data)
    capsys.readouterr()
    assert main(["verify", f"dataset={output}"]) == 1
    said = capsys.readouterr().out
    assert open_dataset(output).index(2).keys[1] in said
    assert "part-002.tar" in said


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_two_ray_workers_index_what_one_process_indexes(tars: Path, tmp_path: Path) -> None:
    words = ["index", f"shards={tars}/*.tar"]
    assert main([*words, f"output={tmp_path / 'inline'}"]) == 0
    assert main([*words, f"output={tmp_path / 'ray'}", "executor=ray", "workers=2"]) == 0
    assert tree(tmp_path / "ray") == tree(tmp_path / "inline")


def test_what_is_wrong_with_the_list_of_tars_is_wrong_usage(tars: Path, tmp_path: Path) -> None:
    for pattern in (f"{tars}/none-*.tar", f"{tars}/part-{{000..009}}.tar"):
        assert main(["index", f"shards={pattern}", f"output={tmp_path / 'indexed'}"]) == 2
    assert not (tmp_path / "indexed").exists()


@pytest.mark.parametrize("verb", ["index", "annotate"])
def test_a_preset_needs_nothing_but_the_places_of_files(verb: str) -> None:
    module = load_verb(verb)
    places = {
        "index": ["shards=a.tar", "output=o"],
        "annotate": ["dataset=d", "source.annotations=a", "source.answers=b", "source.instances=c"],
    }[verb]
    names = preset_names(verb)
    assert names
    for name in names:
        wanted = read_preset(name, verb=verb)
        kind = wanted.get("source", {}).get("kind")
        known = load_source_locations(kind) if kind else set()
        usable = [word for word in places if not word.startswith("source.") or word[7:].partition("=")[0] in known]
        config = load_config(module.Config, name, usable, verb=verb)
        if isinstance(config, AnnotateConfig):
            assert config.absolute().source_config().annotations.endswith("/a")


def load_source_locations(kind: str) -> set[str]:
    module = importlib.import_module(f"pipelines.sources.{kind}")
    return set(module.Config.LOCATIONS) - {"media"}
