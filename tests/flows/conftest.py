"""The small world that the flows share with the tests of the trainer."""

from tests.worlds import tiny_training, world

__all__ = ["tiny_training", "world"]
