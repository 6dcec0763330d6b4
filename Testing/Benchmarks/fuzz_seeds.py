"""Small valid inputs of every kind, to be damaged."""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
)

from nexusinr.inference import protocol
from nexusinr.models import weights
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig
from nexusinr.training.config import SHIPPED

#: Content by name.
Files = dict[str, bytes]

PATIENT = "Doeling^Janette"
SHAPE = (8, 7, 6)
DATA = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
SPACING = (1.0, 1.2, 3.0)


@cache
def images() -> dict[str, list[Files]]:
    """NIfTI, NRRD and MetaImage files of several kinds, with their data files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {"nifti": _nifti(folder), "nrrd": _nrrd(folder), "metaimage": _metaimage(folder)}


def _nifti(folder: Path) -> list[Files]:
    affine = np.diag((*SPACING, 1.0))
    kinds = {
        "a.nii": nib.Nifti1Image(DATA, affine),
        "b.nii": nib.Nifti1Image(DATA.astype(np.float32), affine),
        "c.nii": nib.Nifti2Image(DATA.astype(np.float64), affine),
        "d.nii": nib.Nifti1Image(DATA, affine, nib.Nifti1Header(endianness=">")),
        "e.nii": nib.Nifti1Image(DATA[..., None].astype(np.uint8), affine),
        "f.nii.gz": nib.Nifti1Image(DATA, affine),
        "g.nii.gz": nib.Nifti2Image(DATA.astype(np.float32), affine),
    }
    kinds["a.nii"].header.set_slope_inter(0.5, -3)
    kinds["b.nii"].header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 40))
    for name, image in kinds.items():
        nib.save(image, folder / name)
    return [{name: (folder / name).read_bytes()} for name in kinds]


def _itk_image() -> sitk.Image:
    image = sitk.GetImageFromArray(DATA.transpose(2, 1, 0))
    image.SetSpacing(SPACING)
    return image


def _nrrd(folder: Path) -> list[Files]:
    for packed in (False, True):
        sitk.WriteImage(_itk_image(), str(folder / f"{packed}.nrrd"), packed)
    found = [
        {f"{packed}.nrrd": (folder / f"{packed}.nrrd").read_bytes()} for packed in (False, True)
    ]
    header, _, body = found[0]["False.nrrd"].partition(b"\n\n")
    return [*found, {"t1.nhdr": header + b"\ndata file: t1.raw\n\n", "t1.raw": body}]


def _metaimage(folder: Path) -> list[Files]:
    found = []
    for packed in (False, True):
        for name in ("t1.mha", "t1.mhd"):
            place = folder / f"{packed}-{name[-3:]}"
            place.mkdir()
            sitk.WriteImage(_itk_image(), str(place / name), packed)
            files = sorted(place.iterdir(), key=lambda file: file.name != name)
            found.append({file.name: file.read_bytes() for file in files})
    return found


# --- DICOM ------------------------------------------------------------------------------------


@cache
def series() -> list[Files]:
    """Folders of slices in several encodings, and enhanced files."""
    folders = [_slices(syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)]
    folders += [_slices(syntax) for syntax in (DeflatedExplicitVRLittleEndian, JPEGLSLossless)]
    return [*folders, {"all.dcm": _encoded(_enhanced())}]


def _slices(syntax: UID) -> Files:
    return {f"{k}.dcm": _encoded(_slice(k), syntax) for k in range(SHAPE[2])}


def _header() -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.SeriesNumber = "1.2.3.4", "1.2.3", 4
    ds.Modality, ds.PatientName, ds.PatientID = "MR", PATIENT, PATIENT
    ds.SeriesDescription = f"t1 {PATIENT}"
    ds.Columns, ds.Rows, ds.SamplesPerPixel = SHAPE[0], SHAPE[1], 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    return ds


def _slice(k: int) -> Dataset:
    ds = _header()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.5.{k + 1}"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 3 * k], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = [1.2, 1], 3, 3
    ds.RescaleSlope, ds.RescaleIntercept = 2, -1
    ds.PixelData = DATA[:, :, k].T.tobytes()
    return ds


def _enhanced() -> Dataset:
    ds = _header()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedMRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.6"
    ds.NumberOfFrames = SHAPE[2]
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.2, 1], 3
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in range(SHAPE[2]):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 3 * k]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.PixelData = DATA.transpose(2, 1, 0).tobytes()
    return ds


def _encoded(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    if syntax == JPEGLSLossless:
        ds.compress(syntax)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


# --- the others -------------------------------------------------------------------------------


@cache
def model() -> tuple[bytes, str]:
    """A weights file that can be imported, and its card."""
    config = NexusINRConfig(features=4, growth=4, blocks=1, layers=1, decoder_width=8)
    card = {"name": "small", "architecture": "NexusINR", "version": "1", "config": config.to_dict()}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        path = weights.save(NexusINR(config), Path(folder), card)
        return path.read_bytes(), path.with_suffix(".json").read_text()


@cache
def messages() -> list[str]:
    """A request for every operation, and the events."""
    run = {
        "t1w": "/data/t1.nii.gz", "t2w": "t2", "spacing": [1, 1, 1.5], "model": "nexus-inr",
        "roi": [0, 0, 0, 10, 10, 10], "device": "cpu", "register": "rigid", "consistency": 1.0,
        "segmentation": True, "dicom": False, "threads": 2, "max_memory": 4.5, "out": "/data/out",
    }  # fmt: skip
    plane = {"affine": np.eye(4).tolist(), "size": [5, 4], "segmentation": False}
    options = {"upsample": run, "estimate": run, "plane": plane, "cancel": {"target": 1}}
    requests = [{"id": 1, "op": op, **options.get(op, {})} for op in protocol.OPERATIONS]
    events = [protocol.progress(0.5, "encoding", 3.0), {"event": "result", "id": "a", "files": {}}]
    return [json.dumps(message) for message in (*requests, *events)]


@cache
def configurations() -> list[str]:
    """Every training configuration that ships, with a place for its data."""
    return [f"{file.read_text()}\ndata: data\n" for file in sorted(SHIPPED.glob("*.yaml"))]
