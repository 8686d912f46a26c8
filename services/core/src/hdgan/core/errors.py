"""The one exception hierarchy of the project. Every class carries the exit code of the stage
contract."""

from __future__ import annotations


class HdganError(Exception):
    """Base of everything this project raises on purpose. A bug (exit 70) unless a subclass says
    otherwise."""

    exit_code: int = 70


class RequestError(HdganError):
    """The run file, request, configuration or an input is invalid: a person has to change
    something."""

    exit_code = 64


class DataError(HdganError):
    """Too much of the data is bad (unreadable slides, broken tiles, a dataset that fails its
    check)."""

    exit_code = 65


class InputMissing(HdganError):
    """An input that its manifest promises is not there or does not verify."""

    exit_code = 66


class InternalError(HdganError):
    """A state that only a bug of ours can produce."""

    exit_code = 70


class Stopped(HdganError):
    """Stopped early on request with the state saved: running the same thing again continues."""

    exit_code = 75


class StoreError(HdganError):
    """A store cannot be used as it is configured: unwritable, no credentials, no such bucket,
    invalid key."""

    exit_code = 64


class StoreUnavailable(StoreError):
    """The store does not answer, or not usably, or its credentials have expired: later it may."""

    exit_code = 69


class NoSpace(StoreUnavailable):
    """The disk or quota under a store or under scratch is full. Finished work is untouched."""


class KeyMissing(StoreError):
    """The store answers, but there is no object under this key."""

    exit_code = 66


class WrongContent(StoreError):
    """An object is there, but its bytes are not those that were asked for."""

    exit_code = 66
