"""Our shards in other people's readers and trainers, as they are: no conversion, no renaming, no code of ours on their side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shards.reader import Dataset
from shards.records import Caption
from shards.verify import verify

SHARDS = "world-train-{00000..00001}.tar"

# open_clip_train wants webdataset up to 0.2.86. Later ones end every tar with an empty marker that its own grouping does not
# know (its issue 935), whoever wrote the tar; so under a later one the marker is switched off, as that issue advises.
TRAIN_OPEN_CLIP = """
import functools, sys
from pathlib import Path
import open_clip, webdataset.tariterators
import open_clip_train.data as data
import open_clip_train.main as program
if "eof_value" in webdataset.tariterators.tar_file_expander.__code__.co_varnames:
    data.tar_file_expander = functools.partial(data.tar_file_expander, eof_value=None)
open_clip.add_model_config(Path(sys.argv[1]))
program.main(sys.argv[2:])
"""

READ_WITH_ENERGON = """
import json, sys
from megatron.energon import WorkerConfig, get_loader, get_train_dataset
config = WorkerConfig(rank=0, world_size=1, num_workers=0)
found = get_train_dataset(
    sys.argv[1], batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None, worker_config=config, repeat=False
)
rows = [[row.__key__, row.caption, list(row.image.shape)] for row in get_loader(found)]
print(json.dumps(rows))
"""


@pytest.fixture
def dataset(world: Callable[..., Dataset]) -> Dataset:
    """Eighteen captioned pictures of 32x32 in two shards."""
    return world()


@pytest.fixture
def expected(dataset: Dataset) -> dict[str, str]:
    """Every key with its first caption."""
    captions = ((record.key, record.annotations[0]) for record in dataset.records())
    return {key: caption.text for key, caption in captions if isinstance(caption, Caption)}


def shard_files(dataset: Dataset) -> Sequence[str]:
    return sorted(str(path) for path in Path(dataset.path, "shards").glob("*.tar"))


def offline(tmp_path: Path) -> dict[str, str]:
    """An environment in which a peer asks no server and keeps its caches to itself."""
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **quiet}


def peer(code: str, *arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a peer in a process of its own, from another folder than ours."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_webdataset_reads_pictures_captions_and_headers(dataset: Dataset, expected: dict[str, str]) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    pipeline = webdataset.WebDataset(shard_files(dataset), shardshuffle=False).decode("pil")
    rows = list(pipeline)
    assert {row["__key__"]: row["txt"] for row in rows} == expected
    assert {row["jpg"].size for row in rows} == {(32, 32)}
    headers = {row["__key__"]: row["json"] for row in rows}
    assert all(header["key"] == key and len(header["annotations"]) == 2 for key, header in headers.items())


def test_hugging_face_datasets_stream_the_shards(
    dataset: Dataset, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    code = """
import json, sys
import datasets
rows = datasets.load_dataset("webdataset", data_files={"train": sys.argv[1:]}, split="train", streaming=True)
print(json.dumps([[row["__key__"], row["txt"], row["jpg"].size, row["json"]["origin"]["id"]] for row in rows]))
"""
    done = peer(code, *shard_files(dataset), env=offline(tmp_path), cwd=tmp_path)
    rows: list[Any] = json.loads(done.stdout.splitlines()[-1])
    assert {key: text for key, text, _, _ in rows} == expected
    assert all(size == [32, 32] for _, _, size, _ in rows)
    assert sorted(int(id) for *_, id in rows) == list(range(18))


@pytest.fixture
def prepared(dataset: Dataset, tmp_path: Path) -> Dataset:
    """The dataset after Energon's own preparation, which puts files of its own beside ours."""
    pytest.importorskip("megatron.energon", reason="megatron-energon is not installed")
    words = ["prepare", "--non-interactive", "--split-ratio", "1,0,0", "--num-workers", "1", "--no-progress"]
    sample = ["--sample-type", "CaptioningSample", "--field-map", '{"image": "jpg", "caption": "txt"}']
    command = [str(Path(sys.executable).with_name("energon")), *words, *sample, dataset.path]
    done = subprocess.run(
        command, env=offline(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dataset


def test_energon_loads_the_dataset_folder(prepared: Dataset, expected: dict[str, str], tmp_path: Path) -> None:
    done = peer(READ_WITH_ENERGON, prepared.path, env=offline(tmp_path), cwd=tmp_path)
    rows = json.loads(done.stdout.splitlines()[-1])
    assert {key: caption for key, caption, _ in rows} == expected
    assert all(shape == [3, 32, 32] for *_, shape in rows)


def test_files_that_a_peer_puts_beside_ours_are_no_damage(prepared: Dataset) -> None:
    assert verify(prepared.path) == []


def test_open_clip_trains_on_the_shards_for_a_few_steps(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("open_clip_train", reason="open_clip_torch is not installed")
    pytest.importorskip("webdataset", reason="webdataset is not installed")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = tmp_path / "tiny_world.json"
    model.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    words = {
        "train-data": str(Path(dataset.path, "shards", SHARDS)),
        "dataset-type": "webdataset",
        "train-num-samples": "18",
        "batch-size": "6",
        "epochs": "1",
        "workers": "1",
        "warmup": "1",
        "log-every-n-steps": "1",
        "model": "tiny_world",
        "logs": str(tmp_path / "logs"),
        "name": "run",
    }
    arguments = [word for name, value in words.items() for word in (f"--{name}", value)]
    peer(TRAIN_OPEN_CLIP, str(model), *arguments, env=offline(tmp_path), cwd=tmp_path)
    log = (tmp_path / "logs" / "run" / "out.log").read_text()
    assert log.count("Train Epoch: 0") == 3, log[-2000:]
    assert (tmp_path / "logs" / "run" / "checkpoints" / "epoch_1.pt").is_file()
