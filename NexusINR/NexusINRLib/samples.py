"""Sample data: a computed head as two scans with thick slices, which came with the module.

The files are what ``nexusinr.training.phantom`` makes: ``acquire(*pair(1.5)[:2])``, rounded.
Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

CATEGORY = "NexusINR"

#: Name of the sample, file and its SHA-256.
SAMPLES = (
    (
        "NexusINRPhantomT1w",
        "phantom_T1w.nii.gz",
        "a39e1f2a60952e8cee0b5c8d5eccc0090b83ebb55d6504c638655a81ae65d43a",
    ),
    (
        "NexusINRPhantomT2w",
        "phantom_T2w.nii.gz",
        "1a297c4e18e2cf0ab1fbb08c502eb66da990d5921c56b462a485189764de17e7",
    ),
)


def register(resources: str | Path) -> None:
    """Adds the samples to Slicer's Sample Data module.

    Args:
        resources: the module's folder of resources.
    """
    from SampleData import SampleDataLogic

    resources = Path(resources)
    SampleDataLogic.registerCustomSampleDataCategory(CATEGORY, title=_("NexusINR"))
    for name, file, digest in SAMPLES:
        SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=name,
            thumbnailFileName=str(resources / "Icons" / f"{name}.png"),
            uris=(resources / "SampleData" / file).resolve().as_uri(),
            fileNames=f"NexusINR-{file}",
            checksums=f"SHA256:{digest}",
            nodeNames=name,
        )
