from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model.examples import Example, Paired, View, stack_images
from shards.errors import BudgetError, ConfigError, DamagedRecordError
from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Media, Origin, Record
from shards.stores import open_storage
from shards.stream import Count, DamageBudget, Item, RecordStream, Stream, source_of
from shards.writer import ShardWriter
from trainers.arrival import Unaugmented, arrived
from trainers.augment import AugmentConfig, EvalView, TrainView
from trainers.loader import LoadedStep, Loader, LoaderError, _end_with
from trainers.task import ImageView

SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBatch:
    pixels: Tensor  # (B, 3, R, R) uint8
    noise: Tensor  # (B,)
    keys: tuple[str, ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        return self

    def __len__(self) -> int:
        return len(self.keys)


class PlainProcessor:
    """Draws a number for each example from its own seed."""

    view = View(image_size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))

    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> PlainBatch:
        noise = [float(torch.rand((), generator=torch.Generator().manual_seed(seed))) for seed in seeds]
        return PlainBatch(
            pixels=stack_images(list(examples)),
            noise=torch.tensor(noise),
            keys=tuple(example.key for example in examples),
        )


class Captions:
    emits: ClassVar[type[Example]] = Paired
    count: Count = "annotations"

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Paired:
        assert item.annotation is not None
        caption = item.record.annotations[item.annotation]
        assert isinstance(caption, Caption)
        return Paired(key=item.name, images=(view(item.record, rng),), text=caption.text)


class Records(Captions):
    count: Count = "records"

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Paired:
        return Paired(key=item.name, images=(view(item.record, rng),), text="")


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((40, 30), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def write(folder: Path, *, rotten: Sequence[int] = ()) -> Dataset:
    """Two shards of 12 pictures with one to three captions each; rotten ones hold bytes that are no picture."""
    storage = open_storage(folder)
    for unit in range(2):
        with ShardWriter(
            storage, dataset="made", split="train", unit=f"u{unit}", unit_index=unit, config_digest="c0ffee"
        ) as writer:
            numbers = range(unit * 12, unit * 12 + 12)
            for number in numbers:
                writer.add(
                    Record(
                        key=f"made-{number:02d}",
                        origin=Origin(dataset="made", split="train", id=str(number)),
                        media=(Media(member="jpg", kind="image", width=40, height=30),),
                        annotations=tuple(Caption(text=f"text {number} {place}") for place in range(1 + number % 3)),
                        payload={"jpg": b"rotten" if number in rotten else picture(number)},
                    )
                )
            writer.commit(raw_items=12, raw_annotations=sum(1 + number % 3 for number in numbers))
    merge(storage, name="made", split="train", config={}, config_digest="c0ffee", expected_units=["u0", "u1"])
    return open_dataset(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader") / "made"
    write(folder)
    return folder


def loader(folder: Path, *, batch_size: int = 12, budget: DamageBudget | None = None, **settings: Any) -> Loader:
    dataset = open_dataset(folder)
    stream = Stream({"made": source_of(dataset, "annotations")}, batch_size=batch_size, seed=5)
    records = RecordStream(stream, {"made": dataset}, count="annotations", budget=budget)
    view = TrainView(SIZE, AugmentConfig())
    return Loader(records, **{"task": Captions(), "processor": PlainProcessor(), "view": view, **settings})


def slots(steps: Sequence[LoadedStep]) -> list[tuple[int, int, str, bytes, float]]:
    """Every slot: step, number, key, pixels, noise."""
    found = []
    for loaded in steps:
        slot = loaded.first_slot
        for batch in loaded.micro_batches:
            assert isinstance(batch, PlainBatch)
            for key, pixels, noise in zip(batch.keys, batch.pixels, batch.noise, strict=True):
                assert key == loaded.names[slot - loaded.first_slot]
                found.append((loaded.step, slot, key, pixels.numpy().tobytes(), float(noise)))
                slot += 1
        assert slot - loaded.first_slot == len(loaded.names)
    return sorted(found)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_augmented_on_the_device_is_drawn_as_in_a_worker(folder: Path, workers: int) -> None:
    pixels: dict[str, list[Tensor]] = {}
    for place in ("worker", "device"):
        config = AugmentConfig.model_validate({"randaugment": {"count": 3}, "augment_on": place})
        steps = loader(folder, view=TrainView(SIZE, config), workers=workers, micro_batches=2).steps(0, 3)
        batches = [batch for step in steps for batch in step.micro_batches]
        assert (place == "device") == all(isinstance(batch, Unaugmented) for batch in batches)
        pixels[place] = []
        for batch in batches:
            there = arrived(batch.to("cpu"))
            assert isinstance(there, PlainBatch)
            pixels[place].append(there.pixels)
    for here, there in zip(pixels["worker"], pixels["device"], strict=True):
        assert (here.int() - there.int()).abs().max() <= 1


@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning"
)  # more workers than this machine has cores
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_makes_the_same_steps_in_order(folder: Path, workers: int) -> None:
    steps = list(loader(folder, workers=workers).steps(3, 10))
    assert [step.step for step in steps] == list(range(3, 10))
    assert slots(steps) == slots(list(loader(folder).steps(0, 10)))[3 * 12 :]


@pytest.mark.parametrize(("world", "micro_batches"), [(2, 1), (3, 2), (12, 1), (1, 4)])
def test_any_world_and_any_cut_makes_the_same_slots_down_to_pixels_and_noise(
    folder: Path, world: int, micro_batches: int
) -> None:
    steps = [
        step
        for rank in range(world)
        for step in loader(folder, rank=rank, world=world, micro_batches=micro_batches).steps(0, 6)
    ]
    assert all(len(step.micro_batches) == micro_batches for step in steps)
    assert slots(steps) == slots(list(loader(folder).steps(0, 6)))


def test_another_epoch_shows_the_same_pairs_in_other_crops_and_another_order(folder: Path) -> None:
    made = loader(folder)
    epochs = [slots(list(made.steps(start, start + 4))) for start in (0, 4)]
    assert len({key for _, _, key, _, _ in epochs[0]}) == 48  # all of the 48 pairs
    assert {key for _, _, key, _, _ in epochs[0]} == {key for _, _, key, _, _ in epochs[1]}
    assert [key for _, _, key, _, _ in epochs[0]] != [key for _, _, key, _, _ in epochs[1]]
    assert not {pixels for *_, pixels, _ in epochs[0]} & {pixels for *_, pixels, _ in epochs[1]}


def test_an_evaluation_makes_every_record_once_and_a_short_last_batch(folder: Path) -> None:
    dataset = open_dataset(folder)
    stream = Stream({"made": source_of(dataset, "records")}, batch_size=10, seed=0, drop_last=False, shuffle=False)
    records = RecordStream(stream, {"made": dataset}, count="records")
    for world, workers in [(1, 0), (2, 0), (5, 2)]:
        steps = [
            step
            for rank in range(world)
            for step in Loader(
                records,
                task=Records(),
                processor=PlainProcessor(),
                view=EvalView(SIZE),
                rank=rank,
                world=world,
                workers=workers,
                train=False,
            ).steps(0, stream.steps_per_epoch)
        ]
        assert [key for _, _, key, _, _ in slots(steps)] == [f"made-{number:02d}" for number in range(24)]


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_draws_nothing_from_the_training_processs_generators(folder: Path, workers: int) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = torch.rand(1), np.random.random(), random.random()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    list(loader(folder, workers=workers).steps(0, 3))
    assert (torch.rand(1), np.random.random(), random.random()) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_an_undecodable_picture_is_replaced_by_its_reserve_counted_and_named(tmp_path: Path, workers: int) -> None:
    write(tmp_path / "made", rotten=[5, 16])
    made = loader(tmp_path / "made", workers=workers)
    steps = list(made.steps(0, 8))
    assert slots(steps) == slots(list(loader(tmp_path / "made").steps(0, 8)))
    keys = {key.split("#")[0] for _, _, key, _, _ in slots(steps)}
    assert len(slots(steps)) == 8 * 12
    assert {"made-05", "made-16"} & keys == set()
    assert {each.key for each in made.damages} == {"made-05", "made-16"}
    assert all("not a picture" in each.what for each in made.damages)
    assert {each.key for step in steps for each in step.damaged} == {"made-05", "made-16"}


@pytest.mark.parametrize("workers", [0, 2])
def test_past_the_budget_the_run_stops_with_a_sentence_and_without_a_traceback_in_it(
    tmp_path: Path, workers: int
) -> None:
    write(tmp_path / "made", rotten=range(0, 24, 2))
    made = loader(tmp_path / "made", workers=workers, budget=DamageBudget(share=0.1, count=3))
    with pytest.raises(BudgetError, match="the budget allows 3") as caught:
        list(made.steps(0, 8))
    assert "Traceback" not in str(caught.value)


def test_damage_met_by_different_workers_adds_up_against_the_budget(tmp_path: Path) -> None:
    rotten = range(0, 24, 3)  # one caption each: in one epoch, only one of the two workers meets each
    write(tmp_path / "made", rotten=rotten)
    made = loader(tmp_path / "made", workers=2, budget=DamageBudget(share=0, count=len(rotten) - 1))
    with pytest.raises(BudgetError, match="8 records are damaged and the budget allows 7"):
        list(made.steps(0, 4))


class DiesInItsThirdStep(PlainProcessor):
    """Its worker is killed, as for want of memory; the third step is only asked for once the first has arrived."""

    def __init__(self) -> None:
        self.parent, self.made = os.getpid(), 0

    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> PlainBatch:
        self.made += 1
        if self.made == 3 and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(examples, seeds, train=train)


def test_a_killed_worker_is_said_where_the_loader_waits_and_new_ones_go_on_with_the_same_steps(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = loader(folder, workers=1, processor=DiesInItsThirdStep()).steps(0, 5)
    found = [next(steps)]
    time.sleep(0.5)  # the worker dies meanwhile: torch's own handler would raise here, in the middle of a training step
    found += steps
    assert [step.step for step in found] == list(range(5))
    assert slots(found) == slots(list(loader(folder).steps(0, 5)))
    said = [record.message for record in caplog.records if "worker was killed" in record.message]
    assert said
    assert all("new workers go on with step" in each for each in said)


class DiesAtOnce(DiesInItsThirdStep):
    def __init__(self) -> None:
        super().__init__()
        self.made = 2


def test_workers_that_die_again_and_again_end_in_one_sentence(folder: Path) -> None:
    with pytest.raises(LoaderError, match=r"killed 3 times in a row .*lower loader_workers"):
        list(loader(folder, workers=2, processor=DiesAtOnce()).steps(0, 8))


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_make_the_same_steps_however_they_are_started(folder: Path, start_method: str) -> None:
    steps = list(loader(folder, workers=2, start_method=start_method).steps(0, 4))
    assert slots(steps) == slots(list(loader(folder).steps(0, 4)))


class Fails(PlainProcessor):
    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> PlainBatch:
        raise ValueError("a fault of the code")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_the_code_is_no_damaged_record(folder: Path, workers: int) -> None:
    with pytest.raises(ValueError, match="a fault of the code"):
        list(loader(folder, workers=workers, processor=Fails()).steps(0, 2))


class NeverShows(EvalView):
    def __call__(self, record: Record, rng: np.random.Generator, *, position: int = 0) -> Tensor:
        raise DamagedRecordError(f"record {record.key!r} shows nothing")


def test_a_view_that_shows_nothing_ends_in_a_sentence(folder: Path) -> None:
    with pytest.raises(BudgetError, match="verify"):
        list(loader(folder, view=NeverShows(SIZE)).steps(0, 1))


def test_waiting_is_reported_and_workers_spare_it(folder: Path) -> None:
    class Slow(PlainProcessor):
        def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> PlainBatch:
            time.sleep(0.2)
            return super().__call__(examples, seeds, train=train)

    assert all(step.waited_s >= 0.2 for step in loader(folder, processor=Slow()).steps(0, 2))
    busy = loader(folder, processor=Slow(), workers=1).steps(0, 3)
    next(busy)
    time.sleep(1.5)  # the caller trains; the worker loads ahead
    assert next(busy).waited_s < 0.2


def test_leaving_early_ends_the_workers(folder: Path) -> None:
    steps = loader(folder, workers=2).steps(0, 1000)
    next(steps)
    workers = set(torch.multiprocessing.active_children())
    assert len(workers) >= 2
    steps.close()
    deadline = time.monotonic() + 10
    while workers & set(torch.multiprocessing.active_children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not workers & set(torch.multiprocessing.active_children())


def test_cuts_and_counts_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="over 5 processes"):
        loader(folder, world=5)
    with pytest.raises(ConfigError, match="micro_batches=4"):
        loader(folder, world=2, micro_batches=4)
    with pytest.raises(ConfigError, match="counts records and the stream counts annotations"):
        loader(folder, task=Records())


def test_a_worker_ends_soon_after_the_training_process_whoever_its_parent_is() -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = multiprocessing.get_context("spawn").Process(target=_end_with, args=(owner.pid,))
    worker.start()
    try:
        worker.join(0.5)
        assert worker.is_alive()
        owner.kill()
        owner.wait()
        worker.join(60)
        assert worker.exitcode == 1
    finally:
        owner.kill()
        worker.kill()
