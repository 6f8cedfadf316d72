"""The command line: ``python -m unicb doctor``, ``explain``, ``preview``, ``testing``."""

import sys

from unicb._cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
