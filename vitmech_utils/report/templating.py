"""HTML from templates in which every value is escaped, unless it is marked as HTML already."""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup


def render(template: str, **values: Any) -> Markup:
    """Fill a template that lies beside this module with values; text that is no `Markup` is escaped.

    Raises jinja2.UndefinedError for a value that the template names and that was not given.
    """
    return Markup(_ENVIRONMENT.get_template(template).render(**values))


def script_json(value: object) -> Markup:
    """JSON that can stand inside a script element: no character of it can end or open a tag.

    Raises ValueError for NaN and infinity, which JSON does not know.
    """
    return htmlsafe_json_dumps(value, json.dumps, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def one_line(value: object) -> str:
    """Text on one line, so that it cannot end the block of Markdown that it stands in. Not escaped yet."""
    return " ".join(str(value).split())


_ENVIRONMENT = Environment(
    loader=PackageLoader("vitmech_utils", "report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
)
_ENVIRONMENT.filters |= {"script_json": script_json, "one_line": one_line}
