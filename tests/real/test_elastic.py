"""A mixture of real pictures, clips and texts under $OSTRAKA_DATA: ranks and workers change mid-epoch, no slot does."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.order import Stream
from shards.reader import Dataset, open_dataset
from shards.stream import Count, Item, RecordStream, source_of
from tests.elastic import assert_nothing_twice_and_nothing_lost, drawn, spread

DATA = Path(os.environ.get("OSTRAKA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def real(*parts: str) -> str:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not here; set OSTRAKA_DATA")
    return str(path)


def converted(output: Path, *, records_per_shard: int, **source: Any) -> Dataset:
    config = ConvertConfig.model_validate(
        {"source": source, "output": str(output), "reject_share": 1.0, "records_per_shard": records_per_shard}
    )
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    return open_dataset(output)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Shards of odd sizes: of pictures with captions, of clips with captions, and of lines of text, one to a shard."""
    root = tmp_path_factory.mktemp("elastic")
    lines = root / "lines.txt"
    names = Path(real("format_samples", "imagenet", "synset_words.txt")).read_text(encoding="utf-8").splitlines()
    lines.write_text("\n".join(names[:9]) + "\n", encoding="utf-8")
    pictures = {
        "annotations": real("coco2017", "annotations", "captions_train2017.json"),
        "media": real("coco2017", "train2017"),
    }
    clips = {"annotations": real("video", "video_text_test_list.json"), "media": real("video")}
    return {
        "pictures": converted(root / "pictures", records_per_shard=4, kind="coco_captions", **pictures),
        "clips": converted(root / "clips", records_per_shard=2, kind="msrvtt", **clips),
        "texts": converted(root / "texts", records_per_shard=1, kind="text_lines", annotations=str(lines)),
    }


@pytest.mark.parametrize("count", ["records", "annotations"])
@pytest.mark.parametrize("number", range(3))
def test_real_records_come_once_byte_for_byte_whatever_the_ranks_and_workers(
    datasets: dict[str, Dataset], count: Count, number: int
) -> None:
    run = drawn(
        random.Random(number), {name: source_of(dataset, count, weight=1.0) for name, dataset in datasets.items()}
    )

    def opened(stream: Stream) -> RecordStream:
        return RecordStream(stream, {name: open_dataset(each.path) for name, each in datasets.items()}, count=count)

    def read(records: RecordStream, step: int, rank: int, world: int) -> list[Item]:
        return [records.fetch(address) for address in records.stream.slots(step, rank, world)]

    batches, order = spread(run, opened, read)
    whole = opened(order)
    assert batches == [[whole.fetch(address) for address in order.batch(step)] for step in run.steps]
    assert not whole.damages
    assert_nothing_twice_and_nothing_lost(run, [[item.address for item in batch] for batch in batches])
    seen = Counter((item.address.source, item.address.epoch, item.name) for batch in batches for item in batch)
    assert set(seen.values()) == {1}
    assert {source for source, *_ in seen} == datasets.keys()
