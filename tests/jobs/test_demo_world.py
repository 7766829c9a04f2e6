"""The demo's world: true captions, pictures that repeat, raw files in COCO's layout, faults that conversion must name."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from jobs.demo.captions import describe
from jobs.demo.drawing import PICTURE_SIDE, render, render_jpeg
from jobs.demo.raw import DemoRawConfig, draw_world, is_written, write_demo_raw
from jobs.demo.scenes import COLOURS, HIDDEN_COLOUR, KINDS, Group, Scene, draw_scene, place_things
from shards.errors import DatasetError


def scene_number(number: int) -> Scene:
    return draw_scene(np.random.default_rng([3, number]))


def test_every_caption_is_true_of_its_scene_and_most_tell_it_from_four_hundred_others() -> None:
    scenes = draw_world(DemoRawConfig(output="unused"))["test"]
    assert len(scenes) >= 400
    chances = []
    for number, scene in enumerate(scenes[::4]):
        for claim, text in describe(scene, np.random.default_rng([5, number])):
            assert claim.holds(scene), text
            chances.append(1 / sum(claim.holds(other) for other in scenes))
    # The best score that any reader could reach; below it the demo's recall would measure the captions, not the model.
    assert np.mean(chances) > 0.93


def test_a_caption_with_another_colour_or_the_relation_turned_round_is_false() -> None:
    left, right = Group(kind="star", colour="red", size="small"), Group(kind="mug", colour="blue", size="large")
    scene = Scene(backdrop="beach", layout="beside", groups=(left, right), jitter=(0.0,) * 6)
    turned = Scene(backdrop="beach", layout="beside", groups=(right, left), jitter=(0.0,) * 6)
    recoloured = Scene(
        backdrop="beach",
        layout="beside",
        groups=(Group(kind="star", colour="pink", size="small"), right),
        jitter=(0.0,) * 6,
    )
    claim, text = describe(scene, np.random.default_rng(0))[0]
    assert "red star" in text
    assert not claim.holds(turned)
    assert not claim.holds(recoloured)


def test_five_captions_of_a_scene_all_differ_and_are_sentences() -> None:
    for number in range(60):
        texts = [text for _, text in describe(scene_number(number), np.random.default_rng(number))]
        assert len(set(texts)) == 5
        for text in texts:
            assert text[0].isupper()
            assert text.endswith(".")
            assert "  " not in text


def test_things_stay_inside_the_picture_and_never_have_the_colour_of_their_ground() -> None:
    kinds, colours = set(), set()
    for number in range(300):
        scene = scene_number(number)
        assert all(group.colour != HIDDEN_COLOUR[scene.backdrop] for group in scene.groups)
        for thing in place_things(scene):
            kinds.add(thing.kind)
            colours.add(thing.colour)
            assert -0.03 <= thing.left <= 1.03 - thing.side, scene
            assert -0.03 <= thing.top <= 1.03 - thing.side, scene
    assert kinds == set(KINDS)
    assert colours == set(COLOURS)


def test_the_upper_group_is_seen_above_the_lower_one() -> None:
    stacked = [scene for scene in map(scene_number, range(300)) if scene.layout in ("above", "on")]
    assert len(stacked) > 50
    for scene in stacked:
        upper, lower = (
            [t for t in place_things(scene) if (t.kind, t.colour) == (g.kind, g.colour)] for g in scene.groups
        )
        gap = min(t.top for t in lower) - max(t.top + t.side for t in upper)
        assert gap > 0.01 if scene.layout == "above" else -0.2 < gap < 0.0


def test_a_picture_depends_on_its_scene_alone() -> None:
    first, again, other = render(scene_number(1)), render(scene_number(1)), render(scene_number(2))
    assert first.size == (PICTURE_SIDE, PICTURE_SIDE)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_two_scenes_of_the_world_are_never_the_same_and_a_small_world_is_the_start_of_a_large_one() -> None:
    world = draw_world(DemoRawConfig(output="unused", scale=0.3))
    facts = [scene.facts for scenes in world.values() for scene in scenes]
    assert len(set(facts)) == len(facts)
    small = draw_world(DemoRawConfig(output="unused", scale=0.1))
    assert small["test"] == world["test"][: len(small["test"])]


def test_the_raw_folder_reads_as_coco_captions(tmp_path: Path) -> None:
    from PIL import Image

    splits = write_demo_raw(DemoRawConfig(output=str(tmp_path / "raw"), scale=0.01))
    for split in splits.values():
        document = json.loads(split.annotations.read_text(encoding="utf-8"))
        assert set(document) == {"info", "licenses", "images", "annotations"}
        sound = [image for image in document["images"] if image["id"] < 900_000]
        assert len(sound) == split.scenes
        for image in sound:
            with Image.open(split.media / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"])
            assert sum(a["image_id"] == image["id"] for a in document["annotations"]) == 5
        assert len({a["id"] for a in document["annotations"]}) == len(document["annotations"])


def test_the_train_split_holds_one_item_of_each_fault(tmp_path: Path) -> None:
    train = write_demo_raw(DemoRawConfig(output=str(tmp_path), scale=0.01))["train"]
    document = json.loads(train.annotations.read_text(encoding="utf-8"))
    broken = [image for image in document["images"] if image["id"] > 900_000]
    files = {image["id"]: train.media / image["file_name"] for image in broken}
    captions = {
        image_id: [a["caption"] for a in document["annotations"] if a["image_id"] == image_id] for image_id in files
    }
    assert sum(not path.exists() for path in files.values()) == 1
    contents = [path.read_bytes() for path in files.values() if path.exists()]
    assert sum(content == b"" for content in contents) == 1
    assert sum(content.startswith(b"<!DOCTYPE html>") for content in contents) == 1
    assert sum(content.startswith(b"\xff\xd8") and not content.endswith(b"\xff\xd9") for content in contents) == 1
    assert sum(not texts for texts in captions.values()) == 1
    assert sum(any(not text.strip() for text in texts) for texts in captions.values()) == 1
    assert len(broken) - len(files) == 1  # one id is listed twice


def test_writing_goes_on_after_a_stop_and_ends_with_the_same_files(tmp_path: Path) -> None:
    whole, stopped = (DemoRawConfig(output=str(tmp_path / name), scale=0.01, seed=4) for name in ("whole", "stopped"))
    write_demo_raw(whole)
    seen: list[str] = []

    def stop_early(split: str) -> None:
        seen.append(split)
        if len(seen) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo_raw(stopped, on_item=stop_early)
    assert not is_written(stopped)
    write_demo_raw(stopped)
    assert is_written(stopped)
    files = {
        path.relative_to(whole.output): path.read_bytes() for path in Path(whole.output).rglob("*") if path.is_file()
    }
    again = {
        path.relative_to(stopped.output): path.read_bytes()
        for path in Path(stopped.output).rglob("*")
        if path.is_file()
    }
    assert files == again


def test_a_folder_with_another_world_is_refused(tmp_path: Path) -> None:
    write_demo_raw(DemoRawConfig(output=str(tmp_path), scale=0.01, seed=0))
    with pytest.raises(DatasetError, match="another seed or scale"):
        write_demo_raw(DemoRawConfig(output=str(tmp_path), scale=0.01, seed=1))


def test_pictures_are_jpegs_of_a_few_kilobytes() -> None:
    from PIL import Image

    data = render_jpeg(scene_number(0))
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        assert picture.mode == "RGB"
    assert len(data) < 12_000
