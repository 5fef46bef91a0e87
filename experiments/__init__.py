"""Studies: one script each, run as ``python -m experiments.NAME``; ``python -m experiments`` lists them."""

import shlex
import sys

# So it is while Python looks for the module that it is to run. Importing takes seconds, in which Ctrl-C is heard too.
if sys.argv and sys.argv[0] == "-m":
    from experiments import command

    command.hear_stop(shlex.join(["python", *sys.orig_argv[1:]]))
