"""The stages that find visual concepts: a small CLIP in the place of a released one, and the nearest nouns of every picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jobs.demo.clip import DemoClipConfig, clip_files, train_demo_clip
from jobs.demo.config import DemoConfig
from jobs.demo.stages import Command, Inner, Stage
from jobs.demo.training import captioned
from jobs.progress import progress

TOP_K = 5  # the demo's vocabulary is some thirty nouns, and a scene shows about five of them


def concept_stages(config: DemoConfig) -> tuple[Stage, Stage]:
    """Train the model, then find the concepts of all captioned pictures."""
    root = Path(config.output)
    clip = DemoClipConfig(
        dataset=str(captioned(root)["train"]),
        output=str(root / "clip"),
        seed=config.seed,
        **config.fewer(DemoClipConfig.model_fields["steps"].default),
    )
    return (
        Stage(
            name="clip",
            step=3,
            title="Train a small open_clip model, in the place of a released one",
            commands=(Inner(line=config.line("clip"), config=clip, work=partial(_train_clip, clip)),),
            evidence=clip_files(root / "clip"),
        ),
        Stage(
            name="concepts",
            step=3,
            title="Find the visual concepts of every picture",
            commands=(find_concepts(root, tuple(captioned(root).values()), output=root / "concepts"),),
            evidence=(root / "concepts" / "vocabulary.json",),
        ),
    )


def find_concepts(root: Path, datasets: Sequence[Path], *, output: Path) -> Command:
    """The command that finds the concepts of some datasets, all in the vocabulary of the training captions."""
    model, weights = clip_files(root / "clip")
    return Command(
        verb="concepts",
        overrides=(
            f"dataset={json.dumps([str(path) for path in datasets])}",
            # Counted on training captions alone: nothing of the test split leaks into the vocabulary.
            f"vocabulary.datasets={json.dumps([str(captioned(root)['train'])])}",
            "phrases.tagger=rules",  # the same concepts wherever a spaCy model happens to be installed
            f"top_k={TOP_K}",
            f"embedder.model={model}",
            f"embedder.pretrained={weights}",
            f"output={output}",
        ),
    )


def _train_clip(config: DemoClipConfig) -> None:
    with progress("clip", total=config.steps, unit="steps") as bar:
        train_demo_clip(config, on_step=lambda done, total: bar.advance(done - bar.done))
