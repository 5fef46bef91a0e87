"""List the studies: ``python -m experiments``."""

import ast
import sys
from pathlib import Path


def studies() -> dict[str, str]:
    """First line of every study's docstring, by name; nothing is imported. A study is a module with PRESETS."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text())
        names = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
        if "PRESETS" in names:
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
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
