"""Memory and time of planning, and of converting, as the annotations grow: `python -m benchmarks.plan_memory --captions 10000000`.

The annotation files are generated: five captions for each picture, scattered over the file as COCO's are. Each run is a process
of its own, whose peak of resident memory the kernel tells. Prints one JSON object per run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

PER_PICTURE = 5
NEAR = 1000  # captions of a picture lie within so many times five rows of each other
_WORDS = tuple(
    "a man woman dog child street bicycle table with on of the red small large standing sitting near".split()  # noqa: SIM905
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--convert", action="store_true", help="make a tiny picture for each and convert them, too")
    parser.add_argument("--folder", type=Path, help="where to put the generated files (default: the temporary folder)")
    parser.add_argument("--child", nargs=2, metavar=("SOURCE", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _run(json.loads(arguments.child[0]), arguments.child[1], convert=arguments.convert)
        return
    with tempfile.TemporaryDirectory(prefix="ostraka-plan-memory-", dir=arguments.folder) as name:
        folder = Path(name)
        _pictures(folder / "photos", -(-arguments.captions // PER_PICTURE) if arguments.convert else NEAR)
        for form in arguments.formats:
            source = _generated(folder, form, arguments.captions)
            measured = _child(source, folder / f"out-{form}", convert=arguments.convert)
            size = os.path.getsize(source["annotations"])
            os.unlink(source["annotations"])
            print(json.dumps({"format": form, "captions": arguments.captions, "file_mib": size >> 20, **measured}))
            sys.stdout.flush()


def _run(source: dict[str, Any], output: str, *, convert: bool) -> None:
    """What one process does; its last line of output is what it measured of itself."""
    import resource

    from pipelines.convert import ConvertConfig, committed, convert_unit, estimate, finish, item_count, plan_units

    config = ConvertConfig.model_validate({"source": source, "output": output})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, busy = time.monotonic(), time.process_time()
    units = plan_units(config)
    planned: dict[str, Any] = {
        "plan_s": round(time.monotonic() - started, 1),
        "plan_cpu_s": round(time.process_time() - busy, 1),
    }
    committed(config, units)
    estimate(config, units)
    if convert:
        started = time.monotonic()
        for unit in units:
            convert_unit(config, unit)
        finish(config, units)
        planned["convert_s"] = round(time.monotonic() - started, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "units": len(units),
                "items": item_count(units),
                **planned,
                "start_mib": before >> 10,
                "peak_mib": peak >> 10,
            }
        )
    )


def _child(source: dict[str, Any], output: Path, *, convert: bool) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.plan_memory", "--child", json.dumps(source), str(output)]
    run = subprocess.run([*words, *(["--convert"] if convert else [])], stdout=subprocess.PIPE, check=True, text=True)
    measured: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return measured


def _pictures(folder: Path, count: int) -> None:
    from PIL import Image

    folder.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 120, 30)).save(buffer, "JPEG")
    for number in range(count):
        (folder / _file(number)).write_bytes(buffer.getvalue())


def _file(picture: int) -> str:
    return f"{picture:012}.jpg"


def _captions(count: int) -> Iterator[tuple[int, str]]:
    """(picture, caption), shuffled within windows of some thousand rows, the same in every run."""
    rng = random.Random(0)
    window = PER_PICTURE * NEAR
    for start in range(0, count, window):
        numbers = list(range(start, min(start + window, count)))
        rng.shuffle(numbers)
        for number in numbers:
            yield number // PER_PICTURE, f"Caption {number}: {' '.join(rng.choices(_WORDS, k=10))}."


def _generated(folder: Path, form: str, count: int) -> dict[str, Any]:
    """Write the annotation file of a format; returns the source that reads it."""
    name, write, source = FORMATS[form]
    path = folder / name
    if form == "parquet":
        _write_parquet(path, count)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            write(file, count)
    return {"annotations": str(path), "media": str(folder / "photos"), **source}


def _write_tsv(file: TextIO, count: int) -> None:
    file.write("file\ttext\n")
    file.writelines(f"{_file(picture)}\t{text}\n" for picture, text in _captions(count))


def _write_csv(file: TextIO, count: int) -> None:
    file.write("file,text\n")
    file.writelines(f'{_file(picture)},"{text}"\n' for picture, text in _captions(count))


def _write_jsonl(file: TextIO, count: int) -> None:
    file.writelines(f'{{"file": "{_file(picture)}", "text": "{text}"}}\n' for picture, text in _captions(count))


def _write_coco(file: TextIO, count: int) -> None:
    def joined(values: Iterator[str]) -> Iterator[str]:
        yield next(values)
        yield from (", " + value for value in values)

    pictures = range(-(-count // PER_PICTURE))
    file.write('{"info": {}, "licenses": [], "images": [')
    file.writelines(joined(f'{{"id": {p}, "file_name": "{_file(p)}", "license": 3}}' for p in pictures))
    file.write('], "annotations": [')
    rows = enumerate(_captions(count))
    file.writelines(joined(f'{{"id": {id}, "image_id": {p}, "caption": "{text}"}}' for id, (p, text) in rows))
    file.write("]}")


def _write_parquet(path: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("file", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        captions = _captions(count)
        while batch := list(islice(captions, 100_000)):
            columns = [[_file(picture) for picture, _ in batch], [text for _, text in batch]]
            writer.write_batch(pa.record_batch(columns, schema=schema))


_TABLE = {"kind": "table", "columns": {"image": "file", "caption": "text"}}
FORMATS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "web_tsv": ("web.tsv", _write_tsv, {"kind": "web_captions"}),
    "csv": ("table.csv", _write_csv, _TABLE),
    "jsonl": ("table.jsonl", _write_jsonl, _TABLE),
    "parquet": ("table.parquet", None, _TABLE),
    "coco": ("captions_train2017.json", _write_coco, {"kind": "coco_captions"}),
}

if __name__ == "__main__":
    main()
