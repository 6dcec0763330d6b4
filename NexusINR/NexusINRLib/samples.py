"""Sample data: a computed head, which came with the module, and a pair of scans of a person.

The files of the head are what ``nexusinr.training.phantom`` makes: ``acquire(*pair(1.5)[:2])``,
rounded. The scans are Slicer's own (CT-MR Brain in its Sample Data module), given by the person in
them for use without restrictions; they are downloaded when their button is pressed, not before.
"""

from __future__ import annotations

from pathlib import Path

import slicer
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

#: How the files are read, whatever else could read a file of that kind.
READER = "VolumeFile"

#: Where Slicer keeps its sample data; a file is called by its SHA-256.
STORE = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256"

#: The pair: name of the node, file as Slicer's own sample calls it, and its SHA-256.
PERSON = (
    (
        "MRBrain T1w",
        "MR-brain-T1.nrrd",
        "2da3f655ed20356ee8cdf32aa0f8f9420385de4b6e407d28e67f9974d7ce1593",
    ),
    (
        "MRBrain T2w",
        "MR-brain-T2.nrrd",
        "fa1fe5910a69182f2b03c0150d8151ac6c75df986449fb5a6c5ae67141e0f5e7",
    ),
)


def register(resources: str | Path) -> None:
    """Adds the samples to Slicer's Sample Data module, once; nothing is downloaded.

    Args:
        resources: the module's folder of resources.
    """
    from SampleData import SampleDataLogic

    if CATEGORY in getattr(slicer.modules, "sampleDataSources", {}):
        return
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
            loadFileTypes=READER,
        )
    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="MRBrainT1wT2w",
        uris=[f"{STORE}/{digest}" for _name, _file, digest in PERSON],
        fileNames=[file for _name, file, _digest in PERSON],
        checksums=[f"SHA256:{digest}" for _name, _file, digest in PERSON],
        nodeNames=[name for name, _file, _digest in PERSON],
        loadFileTypes=READER,
    )
