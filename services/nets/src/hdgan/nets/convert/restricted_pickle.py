"""Unpickling that executes nothing: every name a pickle mentions stands for code of this module.

A pickle is a program that may call whatever it can name. Here it can name a short list of things,
each replaced by an inert stand-in; anything else is refused by name.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hdgan.core.errors import RequestError

Stand = Mapping[tuple[str, str], Any]


class Unchanging:
    """What a pickle may make, but not change: without this, the opcode BUILD sets any attribute of
    any object the pickle can name, stand-ins and what was checked in them among these."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise RequestError("the pickle changes an object after it was made: it is refused")


class _UnchangingType(type):
    def __setattr__(cls, name: str, value: Any) -> None:
        raise RequestError(f"the pickle changes {cls.__name__}: it is refused")


class Maker(Unchanging):
    """Stands for a name that may be called; calls a function of ours."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *values: Any) -> Any:
        return self._make(*values)


class InertDict(dict[Any, Any], Unchanging, metaclass=_UnchangingType):
    """Stands for dictionaries with attribute access."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Named(Unchanging):
    """Stands for a name that is only mentioned, such as a storage type; it cannot be called."""

    module: str
    name: str

    __setstate__ = Unchanging.__setstate__  # not the one that frozen dataclasses with slots have


def _new_set(values: Any = ()) -> set[Any]:
    return set(values)


class NumpyType(metaclass=_UnchangingType):
    """Stands for numpy.dtype, of which only the code of a number's type is looked at."""

    __slots__ = ("code",)

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and layout: not needed for the few types that `numpy_scalar` knows."""


_NUMBERS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}


def numpy_scalar(kind: Any, data: Any = b"") -> float | int | bool:
    """Stands for numpy's function that makes single numbers; makes Python's."""
    if isinstance(data, str):
        data = data.encode("latin1")
    code = kind.code if isinstance(kind, NumpyType) else None
    form = _NUMBERS.get(code) if isinstance(code, str) else None
    if form is None or not isinstance(data, bytes) or len(data) != struct.calcsize(form):
        raise RequestError("the pickle holds a number of an unknown type: refused")
    (number,) = struct.unpack(form, data)
    return number  # type: ignore[no-any-return]


# What nearly every pickle of plain data mentions.
PLAIN: Stand = {
    ("numpy", "dtype"): NumpyType,
    ("numpy.core.multiarray", "scalar"): Maker(numpy_scalar),
    ("numpy._core.multiarray", "scalar"): Maker(numpy_scalar),
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): Maker(_new_set),
    ("__builtin__", "set"): Maker(_new_set),
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows the names it is given and no others.

    Args:
        stand_ins: what each (module, name) stands for.
        load_persistent: what a persistent id stands for; None: none are allowed.
    """

    def __init__(
        self,
        file: io.BytesIO,
        stand_ins: Stand,
        load_persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        # Python 2's byte strings become str of the same bytes, never an error or a codec lookup.
        super().__init__(file, fix_imports=False, encoding="latin1")
        self._stand_ins = stand_ins
        self._load_persistent = load_persistent

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._stand_ins[module, name]
        except KeyError:
            raise RequestError(
                f"the pickle asks for {module[:80]}.{name[:80]}, which is not among the names that "
                "network files need: it is refused"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        if self._load_persistent is None:
            raise RequestError("the pickle refers to objects outside of it: it is refused")
        return self._load_persistent(pid)


def restricted_load(
    file: io.BytesIO,
    stand_ins: Stand,
    load_persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The object of one pickle. RequestError, with the reason, for anything but plain data."""
    try:
        return RestrictedUnpickler(file, stand_ins, load_persistent).load()
    except RequestError:
        raise
    except MemoryError:
        raise RequestError("the pickle asks for more memory than it may have: refused") from None
    except RecursionError:
        raise RequestError("the pickle is nested too deeply: refused") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise RequestError(
            f"the pickle is damaged or malformed: {type(error).__name__}: {str(error)[:200]}"
        ) from None
