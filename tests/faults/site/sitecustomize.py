"""Found first on the path of a process that is to fail: what it shall suffer stands in its environment."""

import json
import os
import sys

if "NNJAX_FAULTS" in os.environ:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    import injection

    sys.path.pop(0)
    injection.install(json.loads(os.environ["NNJAX_FAULTS"]))
