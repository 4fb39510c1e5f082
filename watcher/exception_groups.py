"""What ended a group of tasks."""

from typing import TypeVar

_Error = TypeVar("_Error", bound=Exception)


def first_of(group: BaseExceptionGroup[_Error]) -> _Error:
    """Return the first error of `group`, however deep it lies."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error
