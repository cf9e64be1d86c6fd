"""`python -m fixgrad.cli` is the same as the console script `fixgrad`."""

import sys

from fixgrad.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
