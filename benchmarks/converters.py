"""One conversion of a folder of photos, by us or by another tool, in a process of its own that times itself.

    python -m benchmarks.converters SIDE FOLDER OUTPUT [durable] [members] [dotted.key=value …]

prints `{"cpu_s": …, "wall_s": …, "bytes": …}`. Imports come before the clock; processes that a side starts are counted. Sides other
than `ours` import nothing of this project, so that they run in the environment of their tool. `durable` has every file that a side
wrote forced to disk before the clock stops, as ours does by itself. `members` has webdataset write what our records hold: beside
picture and caption a JSON header, here of facts that cost it nothing to find out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PER_SHARD = 1000
SIDE_PIXELS = 256
DURABLE, MEMBERS = "durable", "members"
Work = Callable[[], object]


def captioned(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every photo with its caption."""
    for line in (folder / "captions.token").read_text().splitlines():
        name, caption = line.split("\t")
        yield folder / "photos" / name.partition("#")[0], caption


def ours(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """The whole verb without the start of Python: plan, convert, merge."""
    from jobs.config import load_config
    from jobs.verbs.shards import Config, run

    source = [
        f"source.annotations={folder / 'captions.token'}",
        f"source.media={folder / 'photos'}",
        "source.split=all",
    ]
    keys = ["source.kind=flickr_captions", *source, f"output={output}", f"records_per_shard={PER_SHARD}"]
    config = load_config(Config, None, [*keys, *overrides], verb="shards")
    first = config.model_copy(update={"source": {**config.source, "limit": 1}, "output": f"{output}-first"})

    def work(config: Config = config) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # where figures are printed
            run(config, dry_run=False)

    work(first)  # for what is imported on the way
    return work


def tar(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """The floor: the same files into one tar."""
    output.mkdir(parents=True)
    command = ["tar", "cf", str(output / "photos.tar"), "-C", str(folder), "photos"]
    return lambda: subprocess.run(command, check=True)


def webdataset(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """webdataset's ShardWriter, fed with bytes."""
    from webdataset import ShardWriter

    output.mkdir(parents=True)
    has_header = MEMBERS in overrides

    def work() -> None:
        with ShardWriter(str(output / "%05d.tar"), maxcount=PER_SHARD, verbose=0) as writer:
            for photo, caption in captioned(folder):
                header = {"json": _header(photo, caption)} if has_header else {}
                writer.write({"__key__": photo.stem, "jpg": photo.read_bytes(), "txt": caption, **header})

    return work


def _header(photo: Path, caption: str) -> dict[str, Any]:
    """As much as a header of ours says."""
    return {
        "schema": 1,
        "key": photo.stem,
        "origin": {"dataset": "photos", "split": "all", "id": photo.name, "file": photo.name},
        "media": [{"member": "jpg", "kind": "image", "width": 640, "height": 480}],
        "annotations": [{"type": "caption", "id": f"{photo.name}#0", "text": caption}],
    }


def mds(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """MosaicML streaming's MDSWriter, with the checksums that ours also writes."""
    from streaming import MDSWriter

    def work() -> None:
        columns = {"key": "str", "jpg": "bytes", "txt": "str"}
        with MDSWriter(out=str(output), columns=columns, hashes=["xxh3_64"], size_limit=1 << 27) as writer:
            for photo, caption in captioned(folder):
                writer.write({"key": photo.stem, "jpg": photo.read_bytes(), "txt": caption})

    return work


def litdata(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """LitData's optimize with one worker."""
    from litdata import optimize

    pairs = [(str(photo), caption) for photo, caption in captioned(folder)]
    return lambda: optimize(
        fn=_lit_item, inputs=pairs, output_dir=str(output), chunk_bytes="128MB", num_workers=1, verbose=False
    )


def _lit_item(pair: tuple[str, str]) -> dict[str, Any]:
    return {"jpg": Path(pair[0]).read_bytes(), "txt": pair[1]}


def img2dataset(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """img2dataset on local files, one process and one thread; `resize` lets it resize and re-encode."""
    from img2dataset import download

    listing = output.parent / f"{output.name}.csv"
    rows = "".join(f'file://{photo.absolute()},"{caption}"\n' for photo, caption in captioned(folder))
    listing.write_text("url,caption\n" + rows)
    resize: dict[str, Any] = (
        {"resize_mode": "keep_ratio", "image_size": SIDE_PIXELS, "resize_only_if_bigger": True, "encode_quality": 90}
        if "resize" in overrides
        else {"resize_mode": "no", "disable_all_reencoding": True}
    )
    return lambda: download(
        url_list=str(listing), input_format="csv", url_col="url", caption_col="caption", output_format="webdataset",
        output_folder=str(output), processes_count=1, thread_count=1, number_sample_per_shard=PER_SHARD,
        enable_wandb=False, **resize,
    )  # fmt: skip


def ray_data(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """Ray Data's write_webdataset on one processor; the start of Ray is not counted."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 30)
    pairs = [{"photo": str(photo), "caption": caption} for photo, caption in captioned(folder)]

    def read(row: dict[str, Any]) -> dict[str, Any]:
        photo = Path(row["photo"])
        return {"__key__": photo.stem, "jpg": photo.read_bytes(), "txt": row["caption"]}

    return lambda: ray.data.from_items(pairs).map(read).write_webdataset(str(output), encoder=None)


def codec(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """Our codec alone: decode, resize, encode; nothing read but the photos, and nothing written."""
    import torch  # noqa: F401 - loaded before the clock starts, as a conversion has it loaded

    from pipelines.pictures import draw, encode_picture

    width = SIDE_PIXELS * 4 // 3

    def work() -> None:
        for photo, _ in captioned(folder):
            pixels = draw(photo.read_bytes(), width=width, height=SIDE_PIXELS)
            encode_picture(pixels, format="jpg", quality=90)

    return work


def pillow(folder: Path, output: Path, overrides: Sequence[str]) -> Work:
    """The same by Pillow."""
    from PIL import Image

    def work() -> None:
        for photo, _ in captioned(folder):
            with Image.open(io.BytesIO(photo.read_bytes())) as picture:
                small = picture.convert("RGB").resize((SIDE_PIXELS * 4 // 3, SIDE_PIXELS), Image.Resampling.BICUBIC)
            small.save(io.BytesIO(), "JPEG", quality=90)

    return work


SIDES: dict[str, Callable[[Path, Path, Sequence[str]], Work]] = {
    "ours": ours, "tar": tar, "webdataset": webdataset, "mds": mds, "litdata": litdata, "img2dataset": img2dataset,
    "ray_data": ray_data, "codec": codec, "pillow": pillow,
}  # fmt: skip


def _force_to_disk(output: Path) -> None:
    for path in output.rglob("*"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main(arguments: Sequence[str]) -> None:
    """Run one side and print what it cost."""
    name, folder, output, *words = arguments
    work = SIDES[name](Path(folder), Path(output), [word for word in words if word != DURABLE])
    cpu, started = _cpu_seconds(), time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        work()
    if DURABLE in words:
        _force_to_disk(Path(output))
    wall, spent = time.perf_counter() - started, _cpu_seconds()
    written = sum(path.stat().st_size for path in Path(output).rglob("*") if path.is_file())
    print(json.dumps({"cpu_s": spent - cpu, "wall_s": wall, "bytes": written}))


if __name__ == "__main__":
    main(sys.argv[1:])
