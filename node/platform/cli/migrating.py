"""What `hotline migrate` says in both roles."""

from collections.abc import Coroutine
from typing import Any

from node.platform.cli.command import Context


def run_migrating(migration: Coroutine[Any, Any, bool], context: Context) -> int:
    """Migrate, and say whether the schema changed; raises OperatorError."""
    changed = context.run(migration)
    print("The database has the schema of this version now." if changed else "The database is up to date.")
    return 0
