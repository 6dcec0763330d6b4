"""What follows what: windows of displays, and slice views during an interaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vtkmodules.vtkCommonCore import vtkCommand


class SharedWindow:
    """Keeps window and level of several volume display nodes the same until it is stopped."""

    def __init__(self, displays: Sequence[Any]) -> None:
        self._displays: list[Any] = []
        self._tags: list[int] = []
        self._busy = False
        for display in displays:
            self.add(display)

    def add(self, display: Any) -> None:
        """One more, which takes over what the others have."""
        if display in self._displays:
            return
        if self._displays:
            _copy_window(self._displays[0], display)
        self._displays.append(display)
        self._tags.append(display.AddObserver(vtkCommand.ModifiedEvent, self._follow))

    def stop(self) -> None:
        """From here on each goes its own way."""
        for display, tag in zip(self._displays, self._tags, strict=True):
            display.RemoveObserver(tag)
        self._displays.clear()
        self._tags.clear()

    def _follow(self, changed: Any, _event: str) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            for display in self._displays:
                if display is not changed:
                    _copy_window(changed, display)
        finally:
            self._busy = False


def _copy_window(source: Any, target: Any) -> None:
    window, level = source.GetWindow(), source.GetLevel()
    if (window, level) == (target.GetWindow(), target.GetLevel()):
        return
    was_modifying = target.StartModify()
    target.SetAutoWindowLevel(False)
    target.SetWindowLevel(window, level)
    target.EndModify(was_modifying)


@contextmanager
def linked_change(slice_logic: Any, flags: int) -> Iterator[Any]:
    """Changes to a slice node inside reach the views that are linked with it.

    Mouse and wheel do this by themselves; a slider or a script has to say so.

    Args:
        slice_logic: of the view that is changed; gives its slice node.
        flags: what is changed, for example ``vtkMRMLSliceNode.SliceToRASFlag`` for scrolling and
            ``vtkMRMLSliceNode.FieldOfViewFlag`` for zooming.
    """
    slice_logic.StartSliceNodeInteraction(flags)
    try:
        yield slice_logic.GetSliceNode()
    finally:
        slice_logic.EndSliceNodeInteraction()
