"""One process and Ray write the same dataset, byte for byte, also when the Ray run is interrupted and resumed."""

from __future__ import annotations

import json
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.ray_executor import RayExecutor
from pipelines.convert import ConvertConfig, convert_unit, plan_units

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, str]:
    """A COCO folder of 30 pictures with a truncated one and a missing one."""
    from PIL import Image

    folder = tmp_path / "train2017"
    folder.mkdir()
    images, annotations = [], []
    for number in range(30):
        images.append({"id": number, "file_name": f"{number}.jpg"})
        annotations += [{"id": 9 * number + k, "image_id": number, "caption": f"No. {number}, {k}."} for k in range(3)]
        Image.new("RGB", (64, 48), (8 * number, 90, 30)).save(folder / f"{number}.jpg")
    (folder / "11.jpg").write_bytes((folder / "11.jpg").read_bytes()[:-200])
    (folder / "23.jpg").unlink()
    (tmp_path / "captions_train2017.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return {
        "kind": "coco_captions",
        "annotations": str(tmp_path / "captions_train2017.json"),
        "media": str(folder),
    }


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_inline_ray_and_an_interrupted_ray_write_the_same_bytes(raw: dict[str, str], tmp_path: Path) -> None:
    words = ["shards", *(f"source.{key}={value}" for key, value in raw.items()), "records_per_shard=4"]
    assert main([*words, f"output={tmp_path / 'inline'}"]) == 0
    expected = tree(tmp_path / "inline")
    for workers in (1, 2):
        output = tmp_path / f"ray-{workers}"
        assert main([*words, f"output={output}", "executor=ray", f"workers={workers}"]) == 0
        assert tree(output) == expected

    output = tmp_path / "interrupted"
    config = ConvertConfig(source=dict(raw), output=str(output), records_per_shard=4)
    run = RayExecutor(workers=2).run(partial(partial, convert_unit, config), plan_units(config))
    assert len(list(islice(run, 2))) == 2
    run.close()
    assert not (output / "dataset.json").exists()
    assert main([*words, f"output={output}", "executor=ray", "workers=2"]) == 0
    assert tree(output) == expected
