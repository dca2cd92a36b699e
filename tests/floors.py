"""Prints the oldest versions that pyproject.toml allows, as constraints: ``python -m tests.floors [EXTRA ...]``."""

import re
import sys
import tomllib
from pathlib import Path


def floors(extras=None):
    """Constraints ``name==version`` from the lower bounds of dependencies and of some extras; None: of all but dev."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for name in optional.keys() - {"dev", "all"} if extras is None else extras:
        wanted += optional[name]
    found = (re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)", each) for each in wanted)
    return sorted({f"{match[1]}=={match[2]}" for match in found if match})


if __name__ == "__main__":
    print("\n".join(floors(sys.argv[1:] or None)))
