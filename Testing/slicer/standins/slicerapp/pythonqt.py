"""Qt's classes with the manners of PythonQt, in which Slicer shows Qt to Python.

A property is an attribute: ``label.text``, ``label.text = "x"``. Setters and other methods stay as
they are. An attribute that does not exist cannot be set, a property takes its own type only, and
``x.connect("signal()", f)`` works beside ``x.signal.connect(f)``.

(PySide's own switch for properties, ``shibokensupport.feature``, takes setters away, which PythonQt
has, and does not work for classes written in Python.)
"""

# ruff: noqa: N802 (names of Slicer and Qt)

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from PySide6 import QtCore

QObject = QtCore.QObject

#: What a property of a type takes; others are left to Qt.
TAKES: dict[str, tuple[type, ...]] = {
    "QString": (str,),
    "bool": (bool, int),
    "int": (int,),
    "uint": (int,),
    "double": (int, float),
    "QStringList": (list, tuple),
}

#: Other names of properties.
ALIASES = {"name": "objectName"}


class Kind(type(QObject)):
    """A class with manners counts as the class that it was made of: Slicer has one of them."""

    def __instancecheck__(cls, instance: Any) -> bool:
        plain = cls.__dict__.get("plain")
        return isinstance(instance, plain) if plain else super().__instancecheck__(instance)


class Manners:
    """What every object of such a class can do."""

    def __setattr__(self, name: str, value: Any) -> None:
        known = inspect.getattr_static(type(self), name, None)
        if isinstance(known, (property, QtCore.Property)):
            _put(self, name, value)
        elif "plain" not in type(self).__dict__:  # a class of the module's own
            super().__setattr__(name, value)
        elif known is not None:
            raise AttributeError(f"{name!r} can not be overwritten on {type(self).__name__} object")
        elif isinstance(value, QObject) and value.property("objectName") == name:
            super().__setattr__(name, value)  # a child, which PySide's loader makes an attribute
        else:
            raise AttributeError(
                f"Attribute {name!r} does not exist and creation of new attributes on "
                f"{type(self).__name__} is not supported"
            )

    def __getattribute__(self, name: str) -> Any:
        if name in ("connect", "disconnect"):  # PySide looks for its own before any other
            return partial(super().__getattribute__("_reach"), name)
        return super().__getattribute__(name)

    def _reach(self, verb: str, signature: str, receiver: Callable[..., Any]) -> bool:
        """Connects or disconnects a signal by its C++ signature, such as ``clicked(bool)``."""
        getattr(self._signal(signature), verb)(receiver)
        return True

    def findChildren(self, kind: type, name: str = "") -> list[Any]:
        """All objects of a class below this one; PySide's own does not know these classes."""
        found = QObject.findChildren(self, QObject)
        return [c for c in found if isinstance(c, kind) and name in ("", c.property("objectName"))]

    def className(self) -> str:
        """The name of the C++ class."""
        return type(self).__name__

    def inherits(self, name: str) -> bool:
        """Whether this is an object of a C++ class."""
        return QObject.inherits(self, name) or any(k.__name__ == name for k in type(self).__mro__)

    def _signal(self, signature: str) -> Any:
        normal = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
        with_nodes = getattr(self.plain, "signatures", {})  # what takes MRML nodes, by signature
        if normal in with_nodes:
            return getattr(self, with_nodes[normal])
        if self.metaObject().indexOfSignal(normal) < 0:
            raise ValueError(f"{type(self).__name__} has no signal {signature}")
        return getattr(self, normal.partition("(")[0])


def _put(thing: QObject, name: str, value: Any) -> None:
    meta = thing.metaObject().property(thing.metaObject().indexOfProperty(ALIASES.get(name, name)))
    kind, given = meta.typeName(), type(value).__name__
    if not meta.isWritable():
        raise AttributeError(f"Property {name!r} of {type(thing).__name__} is not writable")
    fits = isinstance(value, TAKES.get(kind, (object,)))
    value = list(value) if fits and kind == "QStringList" else value
    if not fits or not QObject.setProperty(thing, meta.name(), value):
        raise AttributeError(
            f"Property {name!r} of type {kind!r} does not accept an object of type {given} "
            f"({value!r})"
        )


class _Property(property):
    """Of an object the property, of its class the method of the same name: ``singleShot``."""

    def __init__(self, name: str, plain: type) -> None:
        super().__init__(lambda thing: QObject.property(thing, name))
        self._of_class = getattr(plain, name, None)

    def __get__(self, thing: Any, kind: type | None = None) -> Any:
        return self._of_class if thing is None else super().__get__(thing, kind)


@cache
def pythonic(plain: type) -> Any:
    """The class with manners that is made of a class of PySide6."""
    meta = plain.staticMetaObject
    names = [meta.property(i).name() for i in range(meta.propertyCount())]
    # Properties written in Python are attributes already, and Qt finds them there.
    members = {
        name: _Property(name, plain)
        for name in names
        if not isinstance(inspect.getattr_static(plain, name, None), QtCore.Property)
    }
    members |= {alias: _Property(name, plain) for alias, name in ALIASES.items()}
    return Kind(plain.__name__.lstrip("_"), (Manners, plain), {**members, "plain": plain})
