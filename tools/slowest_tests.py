"""List tests by the time that their last run took, slowest first: python slowest_tests.py [HOW_MANY].

The times are those that every call of pytest leaves in results/.test_seconds.json.
"""

import json
import sys
from pathlib import Path

SECONDS = Path(__file__).resolve().parents[1] / "results" / ".test_seconds.json"


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else None
    if not SECONDS.is_file():
        sys.exit(f"{SECONDS} is not there: run make test first")
    found = json.loads(SECONDS.read_text(encoding="utf-8"))
    ordered = sorted(found, key=lambda name: found[name]["seconds"], reverse=True)
    print(f"{sum(one['seconds'] for one in found.values()):8.1f} s  {len(found)} tests")
    for name in ordered[:most]:
        print(f"{found[name]['seconds']:8.1f} s  {name} {' '.join(found[name]['marks'])}".rstrip())


if __name__ == "__main__":
    main()
