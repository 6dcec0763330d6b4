"""Typed parameters on a real MRML node, tied to widgets.

As in Slicer a value is kept as text, a node as a reference; a value of another type or outside its
range is refused; a widget is known by its dynamic property ``SlicerParameterName``.
"""

# ruff: noqa: N802, N815 (names of Slicer and Qt)

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer
from vtkmodules.vtkCommonCore import vtkCommand

SlicerParameterNamePropertyName = "SlicerParameterName"


class Validator:
    """Raises ValueError for what is not to be written."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


class WithinRange(Validator):
    """From minimum to maximum, both included."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(
                f"Value must be within range [{self.minimum}, {self.maximum}], is {value}"
            )


class Minimum(Validator):
    """At least this."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be greater than {self.minimum}, is {value}")


class Maximum(Validator):
    """At most this."""

    def __init__(self, maximum: float) -> None:
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be less than {self.maximum}, is {value}")


class Choice(Validator):
    """One of these."""

    def __init__(self, choices: list[Any]) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of: {self.choices}")


class Default:
    """The value at first, as an annotation."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        return self._generator() if self._generator else self._value


# --- one parameter ----------------------------------------------------------------------------

PLAIN = {bool: False, int: 0, float: 0, str: ""}


class Parameter:
    """A parameter of a class: its type, what it must be, and how it is kept."""

    def __init__(self, name: str, annotated: Any, given: Any) -> None:
        self.name, self.annotated = name, annotated
        parts = typing.get_args(annotated) if hasattr(annotated, "__metadata__") else [annotated]
        self.kind, self.accepts_none = _without_none(parts[0])
        self.validators = [p for p in parts[1:] if isinstance(p, Validator)]
        defaults = [p for p in parts[1:] if isinstance(p, Default)]
        if len(self.validators) + len(defaults) != len(parts) - 1:
            raise ValueError(f"unused annotations of {name}: {parts[1:]}")
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)
        is_enum = isinstance(self.kind, type) and issubclass(self.kind, enum.Enum)
        if not (self.is_node or is_enum or self.kind in PLAIN):
            raise TypeError(f"Unable to create serializer for {name}, {annotated}")
        start = next(iter(self.kind)) if is_enum else PLAIN.get(self.kind)
        self.default = given if given is not None else defaults[0].value if defaults else start

    def check(self, value: Any) -> None:
        if value is None and self.is_node:
            return
        wanted = (int, float) if self.kind is float else self.kind
        if value is None:
            raise ValueError("Value must not be None")
        if not isinstance(value, wanted):
            raise TypeError(f"Value must be of type {wanted!r}, is type {type(value)!r} {value!r}")
        for validator in self.validators:
            validator.validate(value)

    def write(self, node: Any, value: Any) -> None:
        self.check(value)
        text = value.name if isinstance(value, enum.Enum) else str(value)
        node.SetParameter(self.name, "" if self.is_node else text)
        if self.is_node:
            node.SetNodeReferenceID(self.name, None if value is None else value.GetID())

    def read(self, node: Any) -> Any:
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if issubclass(self.kind, enum.Enum):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)


def _without_none(kind: Any) -> tuple[Any, bool]:
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind, False
    rest = [k for k in typing.get_args(kind) if k is not type(None)]
    if len(rest) != 1 or not issubclass(rest[0], slicer.vtkMRMLNode):
        raise TypeError(f"only a node may be None here, not {kind}")
    return rest[0], True


# --- widgets ----------------------------------------------------------------------------------

#: Widgets for numbers.
NUMBERS = {
    int: (qt.QSlider, qt.QSpinBox, qt.QDoubleSpinBox, ctk.ctkSliderWidget),
    float: (qt.QDoubleSpinBox, ctk.ctkSliderWidget),
}


class Tie:
    """A parameter and a widget that show the same."""

    def __init__(self, widget: Any, parameter: Parameter) -> None:
        self.widget, self.parameter = widget, parameter
        kind, form = parameter.kind, type(widget)
        if kind is bool and form in (qt.QCheckBox, ctk.ctkCheckBox, qt.QPushButton):
            self._as("checked", widget.toggled)
        elif form in NUMBERS.get(kind, ()):
            self._bound()
            self._as("value", widget.valueChanged)
        elif form in (qt.QComboBox, ctk.ctkComboBox) and not parameter.is_node:
            self._items()
        elif kind is str and form in (qt.QLineEdit, qt.QLabel):
            self._as("text", widget.textChanged if form is qt.QLineEdit else None)
        elif parameter.is_node and form is slicer.qMRMLNodeComboBox:
            widget.nodeTypes = [kind().GetClassName()]
            self.signal = widget.currentNodeChanged
            self.read, self.write = widget.currentNode, widget.setCurrentNode
        else:
            raise RuntimeError(
                f"Unable to create GUI connector from datatype {parameter.annotated} to {form}"
            )

    def _as(self, name: str, signal: Any) -> None:
        self.signal = signal
        self.read = lambda: self.parameter.kind(getattr(self.widget, name))
        self.write = lambda value: setattr(self.widget, name, value)

    def _bound(self) -> None:
        limits = [v for v in self.parameter.validators if isinstance(v, WithinRange)]
        if limits:
            self.widget.minimum, self.widget.maximum = limits[0].minimum, limits[0].maximum
        elif type(self.widget) in (ctk.ctkSliderWidget, qt.QSlider):
            raise RuntimeError("Cannot have a connection to a slider where the type is unbounded.")
        else:
            huge = float("inf") if self.parameter.kind is float else 2**31 - 1
            self.widget.minimum, self.widget.maximum = -huge, huge
        if type(self.widget) is ctk.ctkSliderWidget and self.parameter.kind is int:
            self.widget.decimals = 0

    def _items(self) -> None:
        choices = [v.choices for v in self.parameter.validators if isinstance(v, Choice)]
        if not choices and not issubclass(self.parameter.kind, enum.Enum):
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation")
        values = choices[0] if choices else list(self.parameter.kind)
        label = getattr(self.parameter.kind, "label", lambda v: getattr(v, "name", str(v)))
        self.widget.clear()
        self.widget.addItems([label(value) for value in values])
        self.signal = self.widget.currentIndexChanged
        self.read = lambda: values[self.widget.currentIndex]
        self.write = lambda value: setattr(self.widget, "currentIndex", values.index(value))


# --- the wrapper ------------------------------------------------------------------------------


class Wrapper:
    """What a wrapped class can do besides its parameters."""

    allParameters: dict[str, Parameter]

    def __init__(self, parameterNode: Any) -> None:
        if not isinstance(parameterNode, slicer.vtkMRMLScriptedModuleNode):
            raise TypeError(f"a parameter node is wrapped, not {type(parameterNode).__name__}")
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[int, list[tuple[Tie, Any]]]] = {}
        self._busy, self._next = False, 0
        for parameter in self.allParameters.values():
            parameter.read(parameterNode)

    def getValue(self, name: str) -> Any:
        return self._known(name).read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self._known(name).write(self.parameterNode, value)

    def default(self, name: str) -> Default:
        return Default(self._known(name).default)

    def dataType(self, name: str) -> Any:
        return self._known(name).annotated

    def connectGui(self, gui: Any) -> int:
        """Ties the widgets below one, or in an object, that name a parameter."""
        is_widget = hasattr(gui, "isWidgetType")
        widgets = gui.findChildren(qt.QWidget) if is_widget else list(vars(gui).values())
        named = [(w.property(SlicerParameterNamePropertyName), w) for w in widgets]
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        ties = []
        for name, widget in mapping.items():
            tie = Tie(widget, self._known(name))
            tie.write(self.getValue(name))
            receiver = self._receiver(tie)
            if tie.signal is not None:
                tie.signal.connect(receiver)
            ties.append((tie, receiver))
        observer = self.AddObserver(vtkCommand.ModifiedEvent, lambda *_: self._update_widgets())
        self._next += 1
        self._guis[self._next - 1] = (observer, ties)
        return self._next - 1

    def disconnectGui(self, tag: int) -> None:
        if tag not in self._guis:
            return
        observer, ties = self._guis.pop(tag)
        self.RemoveObserver(observer)
        for tie, receiver in ties:
            if tie.signal is not None:
                tie.signal.disconnect(receiver)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was_modified: int) -> int:
        return self.parameterNode.EndModify(was_modified)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def _known(self, name: str) -> Parameter:
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")
        return self.allParameters[name]

    def _receiver(self, tie: Tie) -> Callable[..., None]:
        def take(*_: Any) -> None:
            if not self._busy:
                with slicer.util.NodeModify(self.parameterNode):
                    self.setValue(tie.parameter.name, tie.read())

        return take

    def _update_widgets(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            with slicer.util.NodeModify(self.parameterNode):
                for _, ties in self._guis.values():
                    for tie, _ in ties:
                        tie.write(self.getValue(tie.parameter.name))
        finally:
            self._busy = False


def parameterNodeWrapper(kind: type | None = None) -> Any:
    """Makes a wrapper of a class whose annotations are parameters."""
    if kind is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {n: Parameter(n, hint, getattr(kind, n, None)) for n, hint in hints.items()}
    members = {n: v for n, v in vars(kind).items() if n not in ("__dict__", "__weakref__")}
    for name in known:
        if hasattr(Wrapper, name):
            raise ValueError(f"Cannot use reserved name {name!r} in a parameterNodeWrapper")
        members[name] = _property(name)
    return type(kind.__name__, (Wrapper,), {**members, "allParameters": known})


def _property(name: str) -> property:
    return property(
        lambda self: self.getValue(name), lambda self, value: self.setValue(name, value)
    )
