"""What headers say before a scan is read: which series a slice belongs to, where the voxels are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from nexusinr.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: A NRRD or MetaImage header is shorter than this, bytes.
_HEADER = 1 << 16

#: How headers name the file that the voxels are in, and how that of a NRRD file ends.
METAIMAGE_DATA = re.compile(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*(.*?)\s*$", re.M | re.I)
_NRRD_DATA = re.compile(rb"[\r\n]\s*data\s*file\s*:", re.I)
_NRRD_END = re.compile(rb"\n\r?\n")

#: Nothing that tells who the patient is; two texts serve to tell T1w from T2w and go no further.
_TAGS = ["SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "ProtocolName", "Rows"]


def dicom_header(file: Path) -> Dataset | None:
    """The few elements that are needed; None for what is no DICOM image."""
    # With the first scan, so that the program is up sooner.
    import pydicom
    from pydicom.errors import InvalidDicomError

    from nexusinr.dicom import UNUSABLE, read_header

    try:
        with pydicom.config.disable_value_validation():
            header = read_header(file, _TAGS)
            return header if header.Rows and header.SeriesInstanceUID else None
    except (*UNUSABLE, InvalidDicomError):
        return None


def data_file(path: Path) -> str | None:
    """The other file that holds the voxels of a NRRD or MetaImage file; None where it does itself.

    Raises InputError where the header does not tell, and where it points out of its folder.
    """
    with path.open("rb") as stream:
        text = stream.read(_HEADER)
    if path.suffix == ".nrrd":
        end = _NRRD_END.search(text)
        if end is None:
            raise InputError("it is not a NRRD image (its header has no end); export it again")
        return "another" if _NRRD_DATA.search(text[: end.start()]) else None
    named = METAIMAGE_DATA.search(text)
    if named is None or text.lower().count(b"elementdatafile") > 1:
        raise InputError(
            "it is not a MetaImage (its header names no data, or more than one); export it again"
        )
    name = named[1].decode("utf-8", "replace")
    if name.upper() == "LOCAL":
        return None
    if not name or name in (".", "..") or re.search(r"[/\\%\0 ]", name):
        raise InputError(
            f"its header looks for its voxels in {name[:80]!r}, which is no plain file name; "
            "export the image as one file"
        )
    return name
