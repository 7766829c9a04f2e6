"""Kill conversions at random, seeded moments, and hold what becomes of them to the undisturbed dataset, byte for byte.

    python -m benchmarks.chaos --trials 200 --seed 0 --results chaos.jsonl

Every trial makes one dataset: faults first, then the same command until it ends. At every moment in between, each file that a
reader could see must have the bytes of the undisturbed dataset, and no dataset may open before it is complete. The command
itself can be stopped: trials that are in the results file are not done again. Exit code 1 where any trial fails.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.chaos_world import ROOT, World, finish, problem_with, visible
from benchmarks.saboteur import Moment, Saboteur
from jobs.cli import main as command

PATIENCE_S = 120.0
KILLS = 3  # of one trial, at most
MOMENTS: tuple[Moment, ...] = ("before", "during", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What happened in one trial."""

    number: int
    kind: str
    kills: int
    seconds: float
    problem: str | None = None


class WrongEndError(Exception):
    """A process that was not killed has failed, or hangs."""


def build_world(folder: Path) -> World:
    """Write the raw files (one picture is missing, one is broken) and convert them undisturbed."""
    from PIL import Image

    photos = folder / "photos"
    photos.mkdir(parents=True)
    places: dict[str, tuple[str, ...]] = {}
    for name, count in (("some", 18), ("more", 27)):
        images, captions = [], []
        for number in range(count):
            images.append({"id": number, "file_name": f"{number}.jpg"})
            captions += [{"id": 9 * number + k, "image_id": number, "caption": f"No. {number}, {k}"} for k in range(2)]
            Image.new("RGB", (64, 48), (7 * number % 255, 90, 30)).save(photos / f"{number}.jpg")
        (folder / name).mkdir()
        file = folder / name / "captions_train.json"
        file.write_text(json.dumps({"images": images, "annotations": captions}))
        places[name] = (
            "shards",
            "source.kind=coco_captions",
            f"source.annotations={file}",
            f"source.media={photos}",
            "records_per_shard=3",
        )
    (photos / "7.jpg").unlink()
    (photos / "11.jpg").write_bytes(b"<html>")
    output = folder / "undisturbed"
    operations = _count(places["some"], output)
    first = visible(output)
    assert command([*places["more"], f"output={output}", "append=true"]) == 0
    return World(
        words=places["some"], grown=places["more"], operations=operations, first=first, expected=visible(output)
    )


def kill_a_process(world: World, output: Path, rng: random.Random) -> tuple[int, str | None]:
    """One process after another dies at a random operation on its disk."""
    kills = 0
    for _ in range(rng.randint(1, KILLS)):
        kills += _join([_victim(world.words, output, rng, world.operations)])
        if (problem := problem_with(output, world)) is not None:
            return kills, problem
    return kills, finish(world.words, output, world.first)


def kill_racing_processes(world: World, output: Path, rng: random.Random) -> tuple[int, str | None]:
    """Identical jobs run at once on one output, and each dies at a random operation."""
    kills = _join([_victim(world.words, output, rng, world.operations) for _ in range(3)])
    return kills, problem_with(output, world) or finish(world.words, output, world.first)


def kill_an_addition(world: World, output: Path, rng: random.Random) -> tuple[int, str | None]:
    """New items are appended to a finished dataset, and the process dies at a random operation."""
    if (problem := finish(world.words, output, world.first)) is not None:
        return 0, problem
    kills = 0
    for _ in range(rng.randint(1, KILLS)):
        kills += _join([_victim((*world.grown, "append=true"), output, rng, world.operations // 2)])
        if (problem := problem_with(output, world)) is not None:
            return kills, problem
    return kills, finish((*world.grown, "append=true"), output, world.expected)


LOCAL: dict[str, Callable[[World, Path, random.Random], tuple[int, str | None]]] = {
    "process": kill_a_process,
    "race": kill_racing_processes,
    "append": kill_an_addition,
}


def run_trial(
    number: int,
    kind: str,
    act: Callable[[World, Path, random.Random], tuple[int, str | None]],
    *,
    world: World,
    folder: Path,
    seed: int,
) -> Trial:
    """Do one trial in a folder of its own, which is removed unless something was wrong."""
    output = folder / f"{kind}-{number}"
    started = time.monotonic()
    try:
        kills, problem = act(world, output, random.Random(f"{seed}/{kind}/{number}"))
    except WrongEndError as error:
        kills, problem = 0, str(error)
    if problem is None:
        shutil.rmtree(output)
    seconds = round(time.monotonic() - started, 2)
    return Trial(number=number, kind=kind, kills=kills, seconds=seconds, problem=problem)


def context() -> multiprocessing.context.ForkServerContext:
    """Processes that start in milliseconds, forked from one that has imported everything and started no thread."""
    # The server imports what is preloaded by its own path, which it takes from the environment alone.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    )
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["benchmarks.chaos", "jobs.verbs.shards", "pipelines.sources.coco_captions"])
    return found


def _victim(words: Sequence[str], output: Path, rng: random.Random, operations: int) -> BaseProcess:
    arguments = (tuple(words), str(output), rng.randint(1, operations), rng.choice(MOMENTS))
    process = context().Process(target=_suffer, args=arguments)
    process.start()
    return process


def _suffer(words: tuple[str, ...], output: str, at: int, moment: Moment) -> None:
    _be_quiet()
    Saboteur(at=at, moment=moment)
    sys.exit(command([*words, f"output={output}"]))


def _count(words: Sequence[str], output: Path) -> int:
    receiver, sender = context().Pipe(duplex=False)
    process = context().Process(target=_tell, args=(tuple(words), str(output), sender))
    process.start()
    sender.close()
    operations = int(receiver.recv())
    _join([process])
    return operations


def _tell(words: tuple[str, ...], output: str, sender: multiprocessing.connection.Connection) -> None:
    _be_quiet()
    saboteur = Saboteur()
    assert command([*words, f"output={output}"]) == 0
    sender.send(saboteur.operations)


def _be_quiet() -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process


def _join(processes: Sequence[BaseProcess]) -> int:
    """Wait for processes; returns how many of them were killed."""
    for process in processes:
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
            raise WrongEndError(f"a conversion did not end in {PATIENCE_S:.0f} s")
    codes = [process.exitcode for process in processes]
    if any(code not in (0, -signal.SIGKILL) for code in codes):
        raise WrongEndError(f"a conversion that nobody killed ended with {codes}")
    return codes.count(-signal.SIGKILL)


def plan(trials: int, *, with_ray: bool) -> list[tuple[int, str]]:
    """Which trials to do: mostly kills at a random operation, which cost little; of those on Ray, as many as there is time for."""
    kinds = (
        ["process"] * 5 + ["race"] * 3 + ["append"] * 4 + (["worker"] * 4 + ["driver", "node"] * 2 if with_ray else [])
    )
    return [(number, kinds[number % len(kinds)]) for number in range(trials)]


def main() -> int:
    """Do the trials that are left, and print one line per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="JSON lines; trials found there are not done again")
    parser.add_argument("--no-ray", action="store_true", help="leave out the kills of Ray workers, drivers and nodes")
    options = parser.parse_args()
    lines = options.results.read_text().splitlines() if options.results and options.results.exists() else []
    done = [Trial(**json.loads(line)) for line in lines]
    numbers = {trial.number for trial in done}
    left = [
        (number, kind) for number, kind in plan(options.trials, with_ray=not options.no_ray) if number not in numbers
    ]
    folder = Path(tempfile.mkdtemp(prefix="ostraka-chaos-"))
    with ExitStack() as stack:
        world = build_world(folder / "raw")
        acts = dict(LOCAL)
        if any(kind not in acts for _, kind in left):
            from benchmarks.chaos_cluster import cluster_acts

            acts |= stack.enter_context(cluster_acts())
        for number, kind in left:
            trial = run_trial(number, kind, acts[kind], world=world, folder=folder, seed=options.seed)
            done.append(trial)
            print(f"{trial.number:>4} {trial.kind:<8} {trial.seconds:>7.2f} s   {trial.problem or 'right'}", flush=True)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(asdict(trial)) + "\n")
    return _report(done, folder)


def _report(done: Sequence[Trial], folder: Path) -> int:
    for kind in sorted({trial.kind for trial in done}):
        own = [trial for trial in done if trial.kind == kind]
        bad = [trial for trial in own if trial.problem is not None]
        seconds = sum(trial.seconds for trial in own)
        print(
            f"{kind:<8} {len(own):>4} trials   {sum(trial.kills for trial in own):>4} kills   {len(bad)} wrong   {seconds:.0f} s"
        )
    wrong = sum(trial.problem is not None for trial in done)
    print(f"{len(done)} trials, {wrong} wrong" + (f"; their folders are in {folder}" if wrong else ""))
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
