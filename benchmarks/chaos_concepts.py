"""Kill the concept job at random, seeded moments, and hold its columns to those of an undisturbed run, byte for byte.

    python -m benchmarks.chaos_concepts --trials 12 --seed 0

Every trial starts from the same dataset without columns: faults first, then the same command until it ends. `process`: the one
process of `executor=inline` dies at a random operation on its disk, up to three times over; `worker`: actors on a cluster die so;
`node`: a node of two goes, with raylet, workers and all, and comes back only after the command has ended with what was left.
Files that are visible in between must have the bytes of the undisturbed run. Exit code 1 where any trial fails.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.chaos import MOMENTS, build_world
from benchmarks.chaos_cluster import NODES, add_node, local_cluster
from benchmarks.chaos_world import visible
from benchmarks.saboteur import Moment, Saboteur
from concepts.annotate import Annotated, ConceptAnnotator
from concepts.nouns import ShardUnit
from jobs.cli import main as command

KINDS = ("process", "worker", "node")
KILLS = 3  # of the process of one trial, at most
LATEST = 60  # operation of a process that dies at one: reading the model and counting nouns take most of the first
PER_SHARD_S = 0.4  # added to every shard while a node is taken away, so that it works then
TINY_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptWorld:
    """A dataset without columns, the command that makes them, and what lies there after an undisturbed run."""

    bare: Path
    words: tuple[str, ...]
    expected: dict[str, bytes]


def build_concept_world(folder: Path) -> ConceptWorld:
    """Convert the pictures of `benchmarks.chaos`, save a CLIP of random weights, and make the columns once."""
    import open_clip
    import torch

    build_world(folder)
    bare = folder / "undisturbed"
    torch.manual_seed(0)
    (folder / "tiny.json").write_text(json.dumps(TINY_CLIP))
    torch.save({"state_dict": open_clip.CLIP(**TINY_CLIP).state_dict()}, folder / "tiny.pt")
    (folder / "names.txt").write_text("dog\nboat\ntree\nhouse\n")  # captions there name nothing
    words = (
        "concepts",
        f"embedder.model={folder / 'tiny.json'}",
        f"embedder.pretrained={folder / 'tiny.pt'}",
        "phrases.tagger=rules",
        f"vocabulary.lists=[{folder / 'names.txt'}]",
        "top_k=2",
    )
    whole = folder / "whole"
    shutil.copytree(bare, whole)
    if command([*words, f"dataset={whole}"]) != 0:
        raise SystemExit("the undisturbed run fails")
    return ConceptWorld(bare=bare, words=words, expected=visible(whole))


def kill_processes(world: ConceptWorld, output: Path, rng: random.Random) -> tuple[int, str | None]:
    """One inline run after another dies at a random operation on its disk."""
    kills = 0
    for _ in range(rng.randint(1, KILLS)):
        arguments = (world.words, str(output), rng.randint(1, LATEST), rng.choice(MOMENTS))
        process = get_context("spawn").Process(target=_suffer, args=arguments)
        process.start()
        process.join()
        kills += process.exitcode != 0
        if (problem := _problem_with(output, world)) is not None:
            return kills, problem
    return kills, _end(world, output)


def kill_workers(world: ConceptWorld, output: Path, rng: random.Random) -> tuple[int, str | None]:
    """Actors that have certain shards die at a random operation, and the run goes on with others."""
    marks = output.with_name(f"{output.name}-marks")
    marks.mkdir()
    shards = len(list((world.bare / "shards").iterdir()))
    deaths = {shard: rng.randint(1, 12) for shard in range(shards) if rng.random() < 0.4}
    mortal = partial(MortalAnnotator, deaths=deaths, marks=str(marks), moment=rng.choice(MOMENTS))
    problem = _run_with(mortal, world, output)
    return len(list(marks.iterdir())), problem or _end(world, output)


def kill_a_node(
    cluster: Any, nodes: list[Any], world: ConceptWorld, output: Path, rng: random.Random
) -> tuple[int, str | None]:
    """A node goes while its actor works; the run ends on what is left."""

    def strike() -> None:
        # Not before the actors work: they count nouns and load the model first, and then write embeddings.
        while not list(output.glob("sidecars/image_embedding-*/*.parquet")):
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 3 * PER_SHARD_S))
        cluster.remove_node(nodes.pop(rng.randrange(len(nodes))), allow_graceful=False)

    killer = threading.Thread(target=strike)
    killer.start()
    problem = _run_with(SlowAnnotator, world, output)
    killer.join()
    nodes.append(add_node(cluster))
    return 1, problem or _end(world, output)


class MortalAnnotator(ConceptAnnotator):
    """Dies with its process at some operation on the disk, once per shard that is named."""

    def __init__(self, *arguments: Any, deaths: dict[int, int], marks: str, moment: Moment, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._deaths, self._marks, self._moment = deaths, marks, moment

    def __call__(self, unit: ShardUnit) -> Annotated:
        mark = Path(self._marks) / str(unit.shard)
        if unit.shard in self._deaths and not mark.exists():
            mark.touch()
            Saboteur(at=self._deaths[unit.shard], moment=self._moment)
        return super().__call__(unit)


class SlowAnnotator(ConceptAnnotator):
    """Takes its time over every shard."""

    def __call__(self, unit: ShardUnit) -> Annotated:
        time.sleep(PER_SHARD_S)
        return super().__call__(unit)


def _run_with(annotator: Callable[..., ConceptAnnotator], world: ConceptWorld, output: Path) -> str | None:
    """Run the command on the cluster that this process is attached to."""
    words = [*world.words, f"dataset={output}", "executor=ray", f"workers={NODES}"]
    with mock.patch("jobs.verbs.concepts.ConceptAnnotator", annotator):
        code = command(words)
    return f"the command ends with {code} on Ray" if code else _problem_with(output, world)


def _problem_with(output: Path, world: ConceptWorld) -> str | None:
    """What a reader could be misled by: a visible file of other bytes than the undisturbed run's."""
    wrong = [name for name, data in visible(output).items() if data != world.expected.get(name)]
    return f"{wrong[0]} is visible and wrong" if wrong else None


def _end(world: ConceptWorld, output: Path) -> str | None:
    """Run the command undisturbed, and compare; temporaries of killed processes may lie about."""
    code = command([*world.words, f"dataset={output}"])
    if code != 0:
        return f"the command ends with {code}"
    found = visible(output)
    wrong = sorted(name for name in found.keys() | world.expected.keys() if found.get(name) != world.expected.get(name))
    return f"{len(wrong)} files differ from the undisturbed run's, the first is {wrong[0]}" if wrong else None


def _suffer(words: Sequence[str], output: str, at: int, moment: Moment) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process
    Saboteur(at=at, moment=moment)
    sys.exit(command([*words, f"dataset={output}"]))


@contextmanager
def _acts(
    kinds: Sequence[str],
) -> Iterator[dict[str, Callable[[ConceptWorld, Path, random.Random], tuple[int, str | None]]]]:
    """What is done in each kind of trial; a cluster is started where one of them needs it."""
    if set(kinds) <= {"process"}:
        yield {"process": kill_processes}
        return
    with local_cluster() as (cluster, nodes):
        yield {
            "process": kill_processes,
            "worker": kill_workers,
            "node": partial(kill_a_node, cluster, nodes),
        }


def main() -> int:
    """Do the trials; print a line for each, and what came of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ostraka-chaos-concepts-"))
    wrong = kills = 0
    with redirect_stdout(io.StringIO()) as quiet, ExitStack() as stack:
        world = build_concept_world(folder / "raw")
        acts = stack.enter_context(_acts(options.kinds))
        for number in range(options.trials):
            kind = options.kinds[number % len(options.kinds)]
            output = folder / f"{kind}-{number}"
            shutil.copytree(world.bare, output)
            started = time.monotonic()
            died, problem = acts[kind](world, output, random.Random(f"{options.seed}/{kind}/{number}"))
            kills, wrong = kills + died, wrong + (problem is not None)
            if problem is None:
                shutil.rmtree(output)
            quiet.truncate(0)
            seconds = time.monotonic() - started
            print(
                f"{number:>4} {kind:<8} {died} killed {seconds:>7.2f} s   {problem or 'right'}",
                file=sys.__stdout__,
                flush=True,
            )
    print(
        f"{options.trials} trials, {kills} kills, {wrong} wrong" + (f"; their folders are in {folder}" if wrong else "")
    )
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
