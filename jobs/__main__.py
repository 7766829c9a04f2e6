"""`python -m jobs <verb> [PRESET] [dotted.key=value …]`."""

from __future__ import annotations

import logging
import os
import sys


def _run() -> int:
    try:
        from jobs.cli import INTERRUPTED, main
    except KeyboardInterrupt:  # so early that nothing was begun; `main` answers a later one
        return 130
    try:
        return main(sys.argv[1:])
    except KeyboardInterrupt:  # a second one, while the first was answered
        return INTERRUPTED


if __name__ == "__main__":
    code = _run()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # One of several ranks: everything is written and the group is left. Threads of torch's transport may still be going
        # down, and the usual teardown of the interpreter now and then aborts on one of them, after all work was done.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
