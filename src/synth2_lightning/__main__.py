"""``python -m synth2_lightning``."""

from synth2_lightning.cli import main

if __name__ == "__main__":
    main()
