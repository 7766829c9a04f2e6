"""What a record is and how it lies on disk: codec, storage, writer, manifest, index, reader, sidecars, and the order of training.

Imports nothing of ours, and neither torch nor ray.
"""
