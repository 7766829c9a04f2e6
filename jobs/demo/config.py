"""How large a demo, where, and how much of it."""

from __future__ import annotations

import shlex
from typing import Any, Literal, Self, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from shards.config import Config

TaskName = Literal["vqa", "entailment", "nlvr2", "grounding"]
StageName = Literal[
    "raw", "shards", "clip", "concepts", "pretrain", "zero_shot", "finetune", "fine_tuned",
    "vqa_raw", "vqa_data", "vqa", "vqa_test",
    "entailment_raw", "entailment_data", "entailment", "entailment_test",
    "nlvr2_raw", "nlvr2_data", "text_assignment", "nlvr2", "nlvr2_test",
    "grounding_raw", "grounding_data", "grounding", "grounding_test",
    "report",
]  # fmt: skip

TASKS: tuple[TaskName, ...] = get_args(TaskName)
STAGES: dict[TaskName, tuple[StageName, ...]] = {
    "vqa": ("vqa_raw", "vqa_data", "vqa", "vqa_test"),
    "entailment": ("entailment_raw", "entailment_data", "entailment", "entailment_test"),
    "nlvr2": ("nlvr2_raw", "nlvr2_data", "text_assignment", "nlvr2", "nlvr2_test"),
    "grounding": ("grounding_raw", "grounding_data", "grounding", "grounding_test"),
}
FEWEST_STEPS = 10


class DemoConfig(Config):
    """How large a demo, where, and with which tasks."""

    output: str = "runs/demo"
    """Everything lies under this folder; running again goes on where an earlier run stopped."""
    scale: float = Field(1.0, gt=0, le=50)
    """Share of the 2,000 scenes; below 1 the training steps shrink as well."""
    seed: int = Field(0, ge=0)
    """Names the world and every random choice of the training."""
    executor: Literal["inline", "ray"] = "ray"
    """Where the conversion to shards runs; the bytes are the same."""
    pretrain: str = "vicha_small"
    """Preset of `train` for the pretraining."""
    finetune: str = "vicha_small_retrieval"
    """Preset of `train` for the fine-tuning."""
    k_test: PositiveInt = 32
    """Candidates that the match head re-ranks for each query."""
    tasks: tuple[TaskName, ...] = ()
    """What the pretrained model is fine-tuned for beside retrieval: `all`, or some of vqa, entailment, nlvr2 and grounding."""
    until: StageName | None = None
    """The last stage to run; unset: all."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _words_are_a_list(cls, value: Any) -> Any:
        names = value.replace(",", " ").split() if isinstance(value, str) else value or ()
        return TASKS if names == ["all"] else names

    @field_validator("tasks")
    @classmethod
    def _each_once_in_one_order(cls, value: tuple[TaskName, ...]) -> tuple[TaskName, ...]:
        return tuple(task for task in TASKS if task in value)

    @model_validator(mode="after")
    def _until_is_reached(self) -> Self:
        for task, stages in STAGES.items():
            if self.until in stages and task not in self.tasks:
                raise ValueError(f"until={self.until} is a stage of the task {task}; add tasks={task}")
        return self

    def line(self, until: StageName) -> str:
        """The command that runs the demo up to a stage."""
        changed = self.model_copy(update={"until": until}).model_dump(exclude_defaults=True)
        words = {key: " ".join(value) if isinstance(value, tuple) else value for key, value in changed.items()}
        return shlex.join(["python", "-m", "jobs", "demo", *(f"{key}={value}" for key, value in words.items())])

    def fewer(self, steps: int) -> dict[str, int]:
        """Fewer steps for a demo that is smaller than the full one; a larger one keeps the preset's."""
        return {} if self.scale >= 1 else {"steps": max(FEWEST_STEPS, round(steps * self.scale))}
