"""The command line: see ``python -m tests.faults --help``."""

import sys

if __name__ == "__main__":
    from tests.faults.matrix import main

    sys.exit(main())
