"""Numbers and steps in words, for the panel."""

from __future__ import annotations

from slicer.i18n import tr as _


def step(name: str) -> str:
    """A step of the worker's in the user's language."""
    known = {
        "waiting": _("Waiting for the run before"),
        "reading": _("Reading the scans"),
        "loading the model": _("Loading the model"),
        "registering": _("Aligning the scans"),
        "encoding": _("Encoding {scan}"),
        "restoring": _("Restoring {scan}"),
        "decoding": _("Restoring"),
        "resampling": _("Resampling"),
        "keeping what was measured": _("Keeping what was measured"),
        "writing": _("Writing"),
        "done": _("Reading the results"),
    }
    verb, _space, scan = name.partition(" ")
    if scan in ("T1w", "T2w") and verb in known:
        return known[verb].format(scan=scan)
    return known.get(name, name[:1].upper() + name[1:])


def sentence(text: str) -> str:
    """With a capital letter and a full stop, as a message stands on its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def seconds(value: float) -> str:
    """A time, roughly, for example ``40 s`` or ``3 min``."""
    if value < 90:
        return _("{count:.0f} s").format(count=value)
    return _("{count:.0f} min").format(count=value / 60)


def voxels(shape: list[int] | tuple[int, ...]) -> str:
    """Sizes of a lattice, for example ``240 × 240 × 180``."""
    return " × ".join(str(n) for n in shape)
