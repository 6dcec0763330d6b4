"""Slicer's ``ctk``: the widgets of the Common Toolkit that panels use, with their properties."""

# ruff: noqa: N801, N802, N815, N816 (names of Slicer and Qt)

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from slicerapp.pythonqt import pythonic

Property, Signal, Slot = QtCore.Property, QtCore.Signal, QtCore.Slot


def _stored(kind: type, name: str, start: Any) -> Property:
    """A property that is only kept."""
    field = f"_{name}"

    def read(self: Any) -> Any:
        return self.__dict__.get(field, start)

    def write(self: Any, value: Any) -> None:
        self.__dict__[field] = value

    return Property(kind, read, write)


class _ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A heading that folds away what lies below it."""

    contentsCollapsed = Signal(bool)

    collapsedHeight = _stored(int, "collapsedHeight", 10)
    flat = _stored(bool, "flat", False)
    contentsLineWidth = _stored(int, "contentsLineWidth", 1)

    def __init__(self, text: Any = None, parent: QtWidgets.QWidget | None = None) -> None:
        title, parent = (text, parent) if isinstance(text, str) else ("", text)
        super().__init__(parent)
        QtWidgets.QAbstractButton.setText(self, title)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda on: self._show(on))
        height = self._heading_height()
        self.setContentsMargins(0, height, 0, 0)
        self.setSizePolicy(
            QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred
        )

    def _get(self) -> bool:
        return not QtWidgets.QAbstractButton.isChecked(self)

    @Slot(bool)
    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _get, setCollapsed, notify=contentsCollapsed)

    def _heading_height(self) -> int:
        return self.fontMetrics().height() + 8

    def _show(self, is_open: bool) -> None:
        for child in QtCore.QObject.children(self):
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(is_open)
        self.setMaximumHeight(16777215 if is_open else self._heading_height())
        QtWidgets.QWidget.updateGeometry(self)
        self.contentsCollapsed.emit(not is_open)

    def hitButton(self, place: QtCore.QPoint) -> bool:
        return place.y() < self._heading_height()

    def sizeHint(self) -> QtCore.QSize:
        layout = QtWidgets.QWidget.layout(self)
        below = layout.sizeHint() if layout and not self._get() else QtCore.QSize(0, 0)
        wide = self.fontMetrics().horizontalAdvance(QtWidgets.QAbstractButton.text(self)) + 40
        return QtCore.QSize(max(wide, below.width()), max(self._heading_height(), below.height()))

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self._heading_height())
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyle.PrimitiveElement.PE_IndicatorArrowDown
        if self._get():
            arrow = QtWidgets.QStyle.PrimitiveElement.PE_IndicatorArrowRight
        whole, option.rect = QtCore.QRect(option.rect), QtCore.QRect(6, 6, 12, 12)
        painter.drawPrimitive(arrow, option)
        flags = QtCore.Qt.AlignmentFlag.AlignVCenter | QtCore.Qt.TextFlag.TextShowMnemonic
        title = QtWidgets.QAbstractButton.text(self)
        painter.drawText(whole.adjusted(24, 0, 0, 0), int(flags), title)


class _ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a box for the same number."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)

    STEPS = 1000

    tickInterval = _stored(float, "tickInterval", 0.0)
    spinBoxVisible = _stored(bool, "spinBoxVisible", True)
    popupSlider = _stored(bool, "popupSlider", False)
    tracking = _stored(bool, "tracking", True)
    invertedAppearance = _stored(bool, "invertedAppearance", False)
    invertedControls = _stored(bool, "invertedControls", False)
    pageStep = _stored(float, "pageStep", 10.0)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__dict__["_box"] = box = QtWidgets.QDoubleSpinBox()
        self.__dict__["_slider"] = slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(slider, 1)
        row.addWidget(box)
        box.setRange(0, 99)
        slider.setRange(0, self.STEPS)
        self.setFocusProxy(slider)
        box.valueChanged.connect(lambda value: self._follow(value))
        slider.valueChanged.connect(lambda step: self._slide(step))

    def _follow(self, value: float) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._slider.blockSignals(True)
        self._slider.setValue(round((value - low) / max(high - low, 1e-9) * self.STEPS))
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _slide(self, step: int) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self.valueIsChanging.emit(low + (high - low) * step / self.STEPS)
        self._box.setValue(low + (high - low) * step / self.STEPS)

    def setRange(self, low: float, high: float) -> None:
        self._box.setRange(low, high)
        self._follow(self._box.value())

    def _set_decimals(self, count: int) -> None:
        self._box.setDecimals(count)
        self.decimalsChanged.emit(count)

    @Slot(float)
    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    value = Property(float, lambda s: s._box.value(), setValue)
    minimum = Property(float, lambda s: s._box.minimum(), lambda s, v: s._box.setMinimum(v))
    maximum = Property(float, lambda s: s._box.maximum(), lambda s, v: s._box.setMaximum(v))
    singleStep = Property(
        float, lambda s: s._box.singleStep(), lambda s, v: s._box.setSingleStep(v)
    )
    decimals = Property(int, lambda s: s._box.decimals(), _set_decimals)
    prefix = Property(str, lambda s: s._box.prefix(), lambda s, v: s._box.setPrefix(v))
    suffix = Property(str, lambda s: s._box.suffix(), lambda s, v: s._box.setSuffix(v))


class _ctkMessageBox(QtWidgets.QMessageBox):
    """A message with the offer not to come again."""

    dontShowAgainVisible = _stored(bool, "dontShowAgainVisible", False)
    dontShowAgain = _stored(bool, "dontShowAgain", False)
    dontShowAgainSettingsKey = _stored(str, "dontShowAgainSettingsKey", "")

    def exec_(self) -> int:
        return int(self.exec())

    def deleteLater(self) -> None:
        """Not now: in Slicer an event loop runs around it, and it is deleted when that goes on."""


class ctkWidgetsUtils:
    """Pictures of widgets."""

    @staticmethod
    def grabWidget(widget: QtWidgets.QWidget, *_size: Any) -> QtGui.QImage:
        """What a widget shows, rendered views included."""
        if not isinstance(widget, QtWidgets.QWidget):
            raise TypeError(f"a widget is wanted, not {widget!r}")
        return QtWidgets.QWidget.grab(widget).toImage()


def _plain(base: type, name: str) -> Any:
    return pythonic(type(name, (base,), {}))


ctkCollapsibleButton = pythonic(_ctkCollapsibleButton)
ctkSliderWidget = pythonic(_ctkSliderWidget)
ctkMessageBox = pythonic(_ctkMessageBox)
ctkComboBox = _plain(QtWidgets.QComboBox, "ctkComboBox")
ctkCheckBox = _plain(QtWidgets.QCheckBox, "ctkCheckBox")

#: Slicer's own parameter node asks whether a widget is one of these.
for _name in (
    "ctkCheckablePushButton", "ctkDirectoryButton", "ctkDoubleRangeSlider", "ctkDoubleSlider",
    "ctkDoubleSpinBox", "ctkPathLineEdit", "ctkRangeWidget", "ctkColorPickerButton",
):  # fmt: skip
    globals()[_name] = _plain(QtWidgets.QWidget, _name)
