"""The columns that a file's rows have their text, address and date in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.page import DAMAGED, NO_TEXT, TOO_LARGE, Page

# Where corpora have them if no column is named: those of FineWeb, C4, Dolma and others
URL_COLUMNS = ("url", "metadata.url", "meta.url")
DATE_COLUMNS = ("date", "timestamp", "created", "metadata.date")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/{0,2}[^\s/]+|[\w-]+(?:\.[\w-]+)+(?:[:/?#]\S*)?$", re.IGNORECASE)


def for_file(path: str, given: str, config: CurateConfig) -> CurateConfig:
    """Return the configuration for a file: with the columns and format of the last pattern that matches its path."""
    for pattern, own in config.columns.items():
        if fnmatch(path, pattern) or fnmatch(given, pattern) or fnmatch(path, f"*/{pattern}"):
            config = config.model_copy(update=own.model_dump(exclude_unset=True))
    return config


def check_patterns(paths: Sequence[tuple[str, str]], config: CurateConfig) -> None:
    """Check that each pattern of ``columns`` matches a file, of which ``paths`` has the path and the source.

    Raises:
        InputError: One matches none.
    """
    for pattern in config.columns:
        only = config.model_copy(update={"columns": {pattern: config.columns[pattern]}})
        if all(for_file(path, given, only) is only for path, given in paths):
            raise InputError(f"curate.columns.{pattern!r} matches no source", "Write a glob of the files' paths")


def value_of(fields: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column, whose name can be a path through nested ones, such as ``metadata.url``, or None."""
    if column in fields:
        return fields[column]
    name, dot, rest = column.partition(".")
    inner = fields.get(name) if dot else None
    return value_of(inner, rest) if isinstance(inner, Mapping) else None


def names_of(config: CurateConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns in which to look for the address and for the date."""
    return (
        (config.url_column,) if config.url_column else URL_COLUMNS,
        (config.date_column,) if config.date_column else DATE_COLUMNS,
    )


def page_of_fields(number: int, fields: Mapping[str, Any], config: CurateConfig) -> Page:
    """Return the page of a row with named columns."""
    text = value_of(fields, config.text_column)
    try:
        url, date = (_first(fields, names) for names in names_of(config))
    except (ValueError, RecursionError):  # a number of thousands of digits
        return Page(number, kind="text", fault=DAMAGED)
    if not isinstance(text, str):
        return Page(number, url=url, date=date, kind="text", fault=NO_TEXT)
    payload = text.encode("utf-8", "surrogatepass")
    fault = TOO_LARGE if len(payload) > config.max_page_bytes else None
    return Page(number, payload, url, date, "utf-8", kind="text", fault=fault)


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    values = (value_of(fields, name) for name in names)
    return next((str(value) for value in values if value and not isinstance(value, Mapping | list)), "")


def is_address(url: str) -> bool:
    """Return whether a text can be an address: with a scheme, or a host name alone or before a path."""
    return _ADDRESS.match(url) is not None


def check_columns(path: str, found: Mapping[str, int], config: CurateConfig) -> None:
    """Check what the rows of a file had, of which ``found`` has the numbers: url, address and date.

    Raises:
        InputError: A column that the configuration names is in no row, or the addresses are none.
    """
    for column, kind in ((config.url_column, "url"), (config.date_column, "date")):
        if column and not found[kind]:
            raise InputError(
                f"no row of {path} has a value in the column {column!r}, which curate.{kind}_column names",
                f"Correct curate.{kind}_column (a nested column is OUTER.INNER), or leave it out",
            )
    if found["url"] and not found["address"]:
        raise InputError(
            f"the addresses of {path} are none: no value of its column of addresses is a URL or has a host name",
            "Set curate.url_column to the column that holds addresses",
        )
