"""``python -m jaxmbrl``: the same as ``jaxmbrl``."""

import sys

from jaxmbrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
