"""Names of the written files, checked against the rules of the BIDS validator.

The Python validator looks at raw data alone; its schema (`bidsschematools`) has the rules for
derivatives as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nexusinr.cohort.dataset import IGNORED


def invalid_names(folder: Path) -> list[str]:
    """Files whose names BIDS does not know, relative to the folder of a derivative data set.

    Hidden files and those of .bidsignore do not count.
    """
    rules = _rules()
    return [name for name in _names(folder) if not any(rule.match(name) for rule in rules)]


def _names(folder: Path) -> Iterator[str]:
    ignored = {name.rstrip("/") for name in IGNORED}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and not is_hidden and ignored.isdisjoint(parts):
            yield "/".join(parts)


@cache
def _rules() -> tuple[re.Pattern[str], ...]:
    from bidsschematools.rules import regexify_filename_rules
    from bidsschematools.schema import load_schema

    schema = load_schema()
    files = schema.rules.files
    found = regexify_filename_rules(files.common, schema, level=2)
    found += regexify_filename_rules(files.deriv.imaging, schema, level=1)
    return tuple(re.compile(rule["regex"]) for rule in found)
