"""Registers functions to be called before a snapshot of the environment is taken
and after one is made from it, where the function uses SnapStart (Lambda
developer guide, "Implement code before or after Lambda function snapshots")."""

__all__ = ["register_before_snapshot", "register_after_restore"]

_before_snapshot = []
_after_restore = []


def register_before_snapshot(func, *args, **kwargs):
    """Has func called with these arguments before the snapshot; what was
    registered last comes first. It returns func, so that it can decorate one."""
    _before_snapshot.append((func, args, kwargs))
    return func


def register_after_restore(func, *args, **kwargs):
    """Has func called with these arguments after a restore, in the order of
    registration. It returns func, so that it can decorate one."""
    _after_restore.append((func, args, kwargs))
    return func


def get_before_snapshot():
    """What the runtime calls, as a list of (function, arguments, named arguments)."""
    return _before_snapshot


def get_after_restore():
    """What the runtime calls, as a list of (function, arguments, named arguments)."""
    return _after_restore
