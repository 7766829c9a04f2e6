"""Memory and time of comparing many pictures with many texts: `python -m benchmarks.retrieval_memory state_bytes=100000000`.

    python -m benchmarks.retrieval_memory [--pictures 3000] [--captions 5] [--ranks 1] [key=value of the evaluation …]

A model of one layer per tower, with as many tokens a picture as a large one, so that what it leaves behind outweighs the work.
Prints one JSON object: by rank, how far the process's own memory (the kernel's RssAnon, which leaves mapped files out) rose
above where it began, seen at every step of each stage; the kernel's peak of all resident memory; CPU seconds; and a
checksum of all scores, by which one setting is held against another.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from model.examples import Paired
from model.families.vicha.config import Config
from model.families.vicha.model import Vicha
from model.tokenizer import WordPiece
from shards.config import validate
from shards.records import Caption, Media, Origin, Record
from trainers.assembly import TrainedRun, open_run
from trainers.config import EvaluateConfig
from trainers.distributed import joined_group
from trainers.exam import Crew
from trainers.gallery import read_gallery
from trainers.imported import ImportedConfig, write_imported
from trainers.pair_scores import row_blocks
from trainers.rerank import DIRECTIONS
from trainers.retrieval import compare
from trainers.shelf import GivenRecords

SIDE = 64
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(995)))
FAMILY = {
    "image_size": SIDE,
    "patch_size": 4,
    "vision": {"width": 128, "depth": 1, "heads": 2},
    "text": {"width": 128, "layers": 2, "fusion_layer": 1, "heads": 2, "mlp_width": 256, "max_positions": 32},
    "projection": 32,
    "contrast": {"queue_size": 64},
    "hierarchy": None,
    "masked_text": None,
    "masked_image": None,
    "concepts": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    if arguments.child:
        _measure(arguments.pictures, arguments.captions, dict(each.split("=", 1) for each in arguments.settings))
        return
    words = [f"--pictures={arguments.pictures}", f"--captions={arguments.captions}", "--child", *arguments.settings]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(arguments.ranks)]
    run = subprocess.run(
        [*launcher, "-m", "benchmarks.retrieval_memory", *words], stdout=subprocess.PIPE, check=True, text=True
    )
    found = sorted(json.loads(line) for line in run.stdout.splitlines() if line.startswith("["))
    measured = [values for _, values in found]
    print(json.dumps({"settings": arguments.settings, "by_rank": measured}, indent=1))


def _measure(pictures: int, captions: int, settings: dict[str, Any]) -> None:
    """Compare once in this process, and print what was seen."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shelf = GivenRecords([_record(number, captions) for number in range(pictures)])
    gallery = read_gallery(shelf, None)
    with tempfile.TemporaryDirectory(prefix="ostraka-retrieval-memory-") as name:
        paths = {"checkpoint": name, "dataset": name, "output": name}
        config = validate(EvaluateConfig, {"k_test": 8, "device": "cpu", **paths, **settings}, where="settings")
        with joined_group(config.device) as group:
            own_memory: dict[str, int] = {}

            def look(stage: str, done: int, total: int) -> None:
                own_memory[stage] = max(own_memory.get(stage, 0), _own_mib() - began)

            crew = _Watched(group, look)
            run = _random_run(Path(name) / "run", group.device)
            _warm_up(run, group.device)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began, busy, started = _own_mib(), time.process_time(), time.monotonic()
            compared = compare(run, gallery, config=config, crew=crew)
            look("after", 0, 0)
            checksum = xxhash.xxh3_64()
            sides = [
                (compared.cosines, DIRECTIONS[1]),
                (compared.found, DIRECTIONS[1]),
                (compared.found, DIRECTIONS[0]),
            ]
            for scores, direction in sides:
                for _, rows in row_blocks(scores, direction):
                    checksum.update(rows.contiguous().numpy().data)
            measured = {
                "own_mib": own_memory,
                "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) >> 10,
                "table_mib": compared.cosines.table.nbytes >> 20,
                "cpu_s": round(time.process_time() - busy, 1),
                "wall_s": round(time.monotonic() - started, 1),
                "scores": checksum.hexdigest(),
            }
            print(json.dumps([group.rank, measured]))
            sys.stdout.flush()
            group.barrier()


class _Watched(Crew):
    """Looks at its own memory on every rank, not only on the one that speaks."""

    def say(self, stage: str, done: int, total: int) -> None:
        self.on_progress(stage, done, total)


def _own_mib() -> int:
    """This process's memory without mapped files."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) >> 10


def _random_run(folder: Path, device: torch.device) -> TrainedRun:
    """A run of random weights and a vocabulary of numbered words."""
    tokenizer = WordPiece(WORDS)
    config = Config.model_validate(FAMILY).with_vocabulary(len(tokenizer))
    imported = ImportedConfig(family=config.model_dump(mode="json"), imported_from=("random numbers",))
    write_imported(folder, Vicha(config), imported, tokenizer)
    return open_run(folder, device=device)


def _warm_up(run: TrainedRun, device: torch.device) -> None:
    """Have everything loaded that a first pass loads."""
    from model.family import Embed

    pixels = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    batch = run.processor([Paired(key="", images=(pixels,), text="word1")], [0], train=False).to(device)
    found = run.family.predict(batch, Embed())
    run.family.match_pairs(found.image_states, found.text_states, found.text_mask)  # type: ignore[operator]


def _record(number: int, captions: int) -> Record:
    """A picture of noise, kept small, and texts of 3 to 22 words."""
    from PIL import Image

    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "JPEG")
    rng = random.Random(number)
    return Record(
        key=f"picture-{number:06d}",
        origin=Origin(dataset="noise", split="test", id=str(number)),
        media=(Media(member="jpg", kind="image", width=8, height=8),),
        annotations=tuple(
            Caption(text=" ".join(rng.choices(WORDS[5:], k=rng.randint(3, 22)))) for _ in range(captions)
        ),
        payload={"jpg": data.getvalue()},
    )


if __name__ == "__main__":
    main()
