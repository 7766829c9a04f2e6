"""Self-contained HTML pages about a dataset, a run or the demo."""
