"""The Python client of Stoa, and the ``stoa`` command.

>>> from stoa import Stoa
>>> stoa = Stoa()
>>> stoa.tables()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stoa.api import Stoa, StoaError

__all__ = ["Stoa", "StoaError"]


def __getattr__(name: str) -> Any:
    # The command imports this package each time a word is completed: HTTP is loaded by those who use it.
    if name in __all__:
        from stoa import api

        return getattr(api, name)
    raise AttributeError(f"module 'stoa' has no attribute {name!r}")
