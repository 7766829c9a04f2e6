"""`ray start` and `ray job submit` exactly as the README says, on a head of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from tests.concepts.worlds import captioned_dataset, tiny_clip

__all__ = ["captioned_dataset", "tiny_clip"]

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """A Ray head with a dashboard; yields the environment that a person would export. It is stopped by its own process ids."""
    temporary = tempfile.mkdtemp(prefix="ostraka-head-", dir="/tmp")
    port, dashboard, client, agent, agent_grpc = free_ports(5)
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{RAY.parent}{os.pathsep}{environment['PATH']}"  # an activated environment
    environment.pop("RAY_ADDRESS", None)
    command = [
        str(RAY), "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2",
        f"--ray-client-server-port={client}", "--object-store-memory=157286400", f"--temp-dir={temporary}",
        # Another Ray on this machine holds the agent's usual ports, and without its agent a head takes no jobs.
        f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1",
    ]  # fmt: skip
    # A session of its own, so that the head and everything it started can be ended together and nothing else is.
    log = Path(temporary, "head.log")
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(address, environment, process, log)
        yield environment | {"RAY_API_SERVER_ADDRESS": address, "GCS": f"127.0.0.1:{port}"}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)


def _wait_for(address: str, environment: dict[str, str], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    command = [str(RAY), "job", "list", "--address", address]
    while time.monotonic() < deadline and process.poll() is None:
        if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.5)
    pytest.fail(f"the Ray head did not come up:\n{log.read_text()[-2000:]}")


@pytest.fixture
def raw(tmp_path: Path) -> list[str]:
    from PIL import Image

    folder = tmp_path / "val2017"
    folder.mkdir()
    images, annotations = [], []
    for number in range(12):
        images.append({"id": number, "file_name": f"{number}.jpg"})
        annotations.append({"id": number, "image_id": number, "caption": f"Number {number}."})
        Image.new("RGB", (32, 32), (20 * number, 9, 9)).save(folder / f"{number}.jpg")
    (tmp_path / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return [
        "source.kind=coco_captions",
        f"source.annotations={tmp_path / 'captions_val2017.json'}",
        f"source.media={folder}",
        "records_per_shard=3",
    ]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_submitted_job_and_an_attached_driver_write_what_one_process_writes(
    head: dict[str, str], raw: list[str], tmp_path: Path
) -> None:
    assert main(["shards", *raw, f"output={tmp_path / 'inline'}"]) == 0
    expected = tree(tmp_path / "inline")

    words = ["-m", "jobs", "shards", *raw, "executor=ray"]
    submitted = _submit(["python", *words, f"output={tmp_path / 'job'}"], head)
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    assert "12 records, 12 annotations, 4 shards" in submitted.stdout
    assert tree(tmp_path / "job") == expected

    attached = _attach([*words, f"output={tmp_path / 'attached'}"], head)
    assert attached.returncode == 0, attached.stderr[-3000:]
    assert tree(tmp_path / "attached") == expected


def test_a_submitted_job_may_start_a_ray_of_its_own(head: dict[str, str], raw: list[str], tmp_path: Path) -> None:
    before = _drivers(head)
    words = ["-m", "jobs", "shards", *raw, "executor=ray", "address=local", f"output={tmp_path / 'own'}"]
    submitted = _submit(["python", *words], head)
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    assert "12 records, 12 annotations, 4 shards" in submitted.stdout
    assert _drivers(head) == before


def test_submitted_concepts_are_those_of_one_process(
    head: dict[str, str],
    captioned_dataset: Callable[..., Any],
    tiny_clip: Callable[..., dict[str, Any]],
) -> None:
    dataset, clip = captioned_dataset(), tiny_clip()
    words = ["concepts", f"dataset={dataset.path}", "phrases.tagger=rules", "vocabulary.min_count=1"]
    words += [f"embedder.model={clip['model']}", f"embedder.pretrained={clip['pretrained']}"]
    assert main(words) == 0
    expected = tree(Path(dataset.path) / "sidecars")
    shutil.rmtree(Path(dataset.path) / "sidecars")
    submitted = _submit(["python", "-m", "jobs", *words, "executor=ray"], head)
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    assert tree(Path(dataset.path) / "sidecars") == expected


def test_submitted_and_attached_training_run_on_the_cluster_and_are_those_of_one_process(
    head: dict[str, str],
    tiny_training: Callable[..., dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    preset = tmp_path / "train.yaml"
    preset.write_text(yaml.safe_dump(tiny_training()))
    assert main(["train", str(preset), f"output={tmp_path / 'inline'}"]) == 0
    losses = capsys.readouterr().out.partition(" done -> ")[0]
    order = (tmp_path / "inline" / "order.jsonl").read_text()
    words = ["-m", "jobs", "train", str(preset), "executor=ray"]

    # A driver that starts a Ray of its own trains just as well, so the head is asked who spoke to it.
    before = _drivers(head)
    submitted = _submit(["python", *words, f"output={tmp_path / 'job'}"], head)
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    assert "step 6/6  loss" in losses
    assert losses in submitted.stdout
    assert (tmp_path / "job" / "order.jsonl").read_text() == order
    assert _drivers(head) == before + 1

    attached = _attach([*words, "workers=2", f"output={tmp_path / 'attached'}"], head)
    assert attached.returncode == 0, attached.stderr[-3000:]
    assert (tmp_path / "attached" / "order.jsonl").read_text() == order
    assert _drivers(head) == before + 2


def _drivers(environment: dict[str, str]) -> int:
    """How many drivers have ever connected to the head; a submitted job whose driver went elsewhere has no `job_id`."""
    with urllib.request.urlopen(f"{environment['RAY_API_SERVER_ADDRESS']}/api/jobs/", timeout=30) as reply:
        return sum(job["job_id"] is not None for job in json.load(reply))


def _attach(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT, env=environment | {"RAY_ADDRESS": environment["GCS"]},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def _submit(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`ray job submit`, again while a head that has only just come up has no job agent yet."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            [str(RAY), "job", "submit", "--working-dir", ".", "--", *words],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if "No available agent" not in done.stdout + done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(1)
