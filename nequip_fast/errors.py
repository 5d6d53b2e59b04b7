"""The error every bad input ends in, and the message for a package that is not installed."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence: what, where and how to mend it.

    The command line prints the message alone and exits with status 2.
    """


class MissingExtra(ImportError):
    """An optional package is needed and not installed; the message names the pip command."""


def require(module: str, extra: str) -> ModuleType:
    """Import ``module`` or raise :class:`MissingExtra` naming the extra of nequip_fast that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # a different import inside that package failed: show it as it is
        raise MissingExtra(f"{module} is not installed; run: pip install 'nequip_fast[{extra}]'") from None


def nearest(word: str, valid: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the valid word closest to ``word``, or an empty string."""
    close = difflib.get_close_matches(word, list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
