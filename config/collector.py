"""Python's collector of cyclic garbage, set for a process that handles thousands of messages a second.

By default it looks at the youngest objects after 700 more, and every so often at all objects, those of the imported
modules included: a tenth of a worker's time, and of a dispatcher's a seventh. Nearly all that a message makes is freed
without it.
"""

from __future__ import annotations

import gc
from typing import Final

#: So many more objects that could be in a cycle: some megabytes.
_YOUNG: Final = 20_000


def settle() -> None:
    """Called once, by a process that has started: what it holds by now stays to its end, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
