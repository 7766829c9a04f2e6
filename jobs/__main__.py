"""`python -m jobs <verb> [PRESET] [dotted.key=value …]`."""

from __future__ import annotations

import logging
import os
import sys

from jobs.cli import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # One of several ranks: everything is written and the group is left. Threads of torch's transport may still be going
        # down, and the usual teardown of the interpreter now and then aborts on one of them, after all work was done.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
