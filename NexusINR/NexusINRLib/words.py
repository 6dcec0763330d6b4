"""Numbers and steps in words, for the panel."""

from __future__ import annotations

from collections.abc import Iterable

from slicer.i18n import tr as _

from nexusinr.models.weights import Card

#: A space at which no line ends.
NO_BREAK = "\N{NO-BREAK SPACE}"


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


def tissue(name: str) -> str:
    """A tissue in the user's language."""
    known = {
        "cerebrospinal fluid": _("cerebrospinal fluid"),
        "grey matter": _("grey matter"),
        "white matter": _("white matter"),
        "deep grey matter": _("deep grey matter"),
        "lesion": _("lesion"),
    }
    return known.get(name, name)


def number(value: float) -> str:
    """Three digits that count, for example ``13.1``; what is hardly there is ``< 0.01``."""
    return "< 0.01" if 0 < abs(value) < 0.01 else f"{value:.3g}"


def sentence(text: str) -> str:
    """With a capital letter and a full stop, as a message stands on its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def seconds(value: float) -> str:
    """A time, roughly, for example ``40 s`` or ``3 min``."""
    if value < 90:
        return _("{count:.0f} s").format(count=value).replace(" ", NO_BREAK)
    return _("{count:.0f} min").format(count=value / 60).replace(" ", NO_BREAK)


def card(told: Card, in_full: bool) -> str:
    """What a model's card says: name, version, licence and use; in full with limits and digest."""
    said = told.details
    licence = said.get("licence", _("not named"))
    lines = [
        _("{name}: network {architecture}, version {version}, licence {licence}.").format(
            name=told.name,
            architecture=told.architecture,
            version=told.version,
            licence=licence,
        ),
        said.get("intended_use", ""),
    ]
    if in_full:
        # In parts: a word of 64 letters would make the panel as wide as itself.
        digest = " ".join(told.sha256[i : i + 16] for i in range(0, 64, 16))
        lines += [said.get("limits", ""), _("Weights: SHA-256 {digest}").format(digest=digest)]
    return "\n".join(filter(None, lines))


def voxels(shape: list[int] | tuple[int, ...]) -> str:
    """Sizes of a lattice, for example ``240 × 240 × 180``, which no line breaks."""
    return product(str(n) for n in shape)


def product(factors: Iterable[str]) -> str:
    """Joined by a times sign; kept together on one line."""
    return f"{NO_BREAK}×{NO_BREAK}".join(factors)
