"""The captioned pictures and the random CLIP that the tests of this room share with those of its verb."""

from tests.concepts.worlds import captioned_dataset, tiny_clip

__all__ = ["captioned_dataset", "tiny_clip"]
