"""Streams and a model to trained weights and scores: tasks, metrics, loader, optimiser, step, trainer, evaluator, checkpoints."""
