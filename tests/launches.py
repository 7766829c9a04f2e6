"""Commands as a person types them, in one process or under `torchrun`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 240


def launch(verb: str, values: Mapping[str, Any], *, preset: Path, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a verb with a preset that is written first; the caller looks at how it ended.

    A command that hangs, because one rank waits for another that has ended, fails by its time-out.
    """
    preset.write_text(yaml.safe_dump(dict(values)))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    return subprocess.run(
        [sys.executable, *torchrun, "-m", "jobs", verb, str(preset)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
