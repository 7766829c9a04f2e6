"""The small world that the verbs' tests share with those of the trainer."""

from tests.worlds import tiny_training, world

__all__ = ["tiny_training", "world"]
