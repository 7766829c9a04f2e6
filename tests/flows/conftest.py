"""The small world that the flows share with the tests of the trainer."""

from tests.s3_server import s3
from tests.worlds import tiny_training, world

__all__ = ["s3", "tiny_training", "world"]
