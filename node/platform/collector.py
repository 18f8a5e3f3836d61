"""Sets Python's garbage collector for a process that handles many small objects; frees nothing itself."""

import gc

#: New objects before the collector looks at the youngest, and how many such looks before it looks further.
_OBJECTS, _YOUNG, _OLD = 20_000, 20, 50


def settle() -> None:
    """Leave what exists now out of every later search, and search less often.

    A started program is some hundred thousand objects that stay. Looked through again and again they hold up callers
    for tens of milliseconds and cost a fifth of the intake (python -m bench.intake).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, _YOUNG, _OLD)
