"""The front door: `python -m jobs <verb>`, presets, executors (inline, Ray), reports and the demo."""
