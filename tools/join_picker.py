"""Join the head picker's modules into the one file that pages and notebooks carry.

    python tools/join_picker.py [--check]

Modules lie in `vitmech_utils/report/picker/src`, one idea each; `picker.js` beside that folder is made from them and
committed. Each module comes after those that it imports, in the order of their imports; the imports themselves fall
away, as do all exports but the entry's. `--check` writes nothing and fails where the file is not what would be made.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PICKER = Path(__file__).parents[1] / "vitmech_utils" / "report" / "picker"
ENTRY = "picker.js"
HEADER = "// Made by tools/join_picker.py from the modules in src; edit those.\n"
_IMPORT = re.compile(r'^import \{ [\w, ]+ \} from "\./(\w+\.js)";\n', re.MULTILINE)
_TYPES = re.compile(r"^/\*\* @import .*\*/\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class) )", re.MULTILINE)
_NAME = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)


class JoinError(Exception):
    """Modules that one file cannot hold."""


def joined(folder: Path) -> str:
    """The text of all modules that the entry needs. Raises `JoinError` for circles and names that clash."""
    parts, names = [HEADER], {}
    for module in in_order(folder):
        text = (folder / module).read_text(encoding="utf-8")
        for name in _NAME.findall(text):
            if name in names:
                raise JoinError(f"{module} and {names[name]} both call something {name}: rename one of them")
            names[name] = module
        if rest := re.search(r"^(?:import\b|export (?:\{|\*)).*", _IMPORT.sub("", text), re.MULTILINE):
            raise JoinError(
                f'{module}: expected imports as `import {{ name }} from "./file.js";`, got {rest[0]}'
            )
        text = _TYPES.sub("", _IMPORT.sub("", text))
        text = text if module == ENTRY else _EXPORT.sub("", text)
        parts.append(re.sub(r"\n{3,}", "\n\n", text))
    return "\n".join(parts)


def in_order(folder: Path, module: str = ENTRY, above: tuple[str, ...] = ()) -> list[str]:
    """The modules, each after those that it imports."""
    if module in above:
        raise JoinError(f"modules import each other in a circle: {' -> '.join((*above, module))}")
    found: dict[str, None] = {}
    for needed in needs(folder / module):
        found |= dict.fromkeys(in_order(folder, needed, (*above, module)))
    return [*found, module]


def needs(path: Path) -> Iterator[str]:
    """The modules that one imports, in the order of its lines."""
    return (match[1] for match in _IMPORT.finditer(path.read_text(encoding="utf-8")))


def main() -> int:
    """Write the file, or say that it is stale."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file is stale")
    check = parser.parse_args().check
    made, path = joined(PICKER / "src"), PICKER / ENTRY
    if path.is_file() and path.read_text(encoding="utf-8") == made:
        return 0
    if check:
        print(f"{path} is not what its modules make: python tools/join_picker.py", file=sys.stderr)
        return 1
    path.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
