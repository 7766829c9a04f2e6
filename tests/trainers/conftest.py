"""The small world that the trainer's tests share with the flows."""

from tests.worlds import tiny_training, world

__all__ = ["tiny_training", "world"]
