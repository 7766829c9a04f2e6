"""Everything that is claimed of a GPU, measured by one command: `python -m benchmarks.gpu`.

Besides torch it takes pydantic and xxhash (3 MB of wheels) for the pretraining step; transformers and Pillow for the CLIP; what
our shards and loader take for the loader. A part whose libraries are missing says so in the result. Nothing is read but what it
generates itself.
"""
