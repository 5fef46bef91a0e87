"""List the studies: ``python -m experiments``."""

import ast
import sys
from pathlib import Path


def studies() -> dict[str, str]:
    """First line of every study's docstring, by name; nothing is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if not path.name.startswith("_"):
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            found[path.stem] = text.splitlines()[0] if text else ""
    return found


def main() -> int:
    """Print the list; an argument is a mistake."""
    if len(sys.argv) > 1 and sys.argv[1] not in ("-h", "--help"):
        print(f"experiments: unknown study {sys.argv[1]}; run python -m experiments.NAME", file=sys.stderr)
        return 2
    print("Run a study with  python -m experiments.NAME [--preset quick|standard|full] [--help]\n")
    for name, line in studies().items():
        print(f"  {name:<20} {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
