"""Tensors in, losses or predictions out: the five examples (the waist), layers, towers, objectives, families, checkpoints."""
