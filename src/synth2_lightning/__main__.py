"""``python -m synth2_lightning``."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109 - nothing else is imported before
    del sys.path[0]  # `python -m` searches the current folder first, which may contain a torch.py

from synth2_lightning.cli import main

if __name__ == "__main__":
    main()
