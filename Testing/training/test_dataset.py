"""What is read from a folder of our own layout, and who trains and who validates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from nexusinr.labels import CSF, GREY, WHITE
from nexusinr.training.dataset import HEAD, TrainingData
from nexusinr.training.layouts import read_pair
from nexusinr.training.loading import load
from nexusinr.training.losses import UNKNOWN


class TestData:
    def test_what_is_read(self, folder, lattice):
        data = load(folder, leave_out=("infant03",))
        assert [s.name for s in data.subjects] == ["infant01", "infant02", "adult_T2w.nii.gz"]
        first, _, single = data.subjects
        t1w, grid = first.images[0], first.grids[0]
        assert t1w.dtype == torch.float16
        assert np.percentile(t1w[t1w > 0].float(), 99.9) == pytest.approx(1, abs=0.01)
        assert grid.same_as(lattice, 1e-5)
        assert single.images[0] is None
        assert single.images[1].shape == lattice.shape
        (label_map,) = data.label_maps
        assert label_map.tissue_of[[0, 1, 2, 30]].tolist() == [0, WHITE, GREY, 0]

    def test_tissues_of_what_is_labelled_and_unknown_elsewhere_in_the_head(self, folder, smooth):
        subject, t1w = read_pair(folder / "pairs" / "infant01"), smooth(0)
        assert (subject.tissues[torch.from_numpy(t1w > 650)] == WHITE).all()
        assert (subject.tissues[torch.from_numpy((t1w > 500) & (t1w <= 650))] == GREY).all()
        assert (subject.tissues[torch.from_numpy((t1w > 400) & (t1w <= 500))] == CSF).all()
        assert (subject.tissues[torch.from_numpy((t1w > 0) & (t1w <= 400))] == UNKNOWN).all()
        assert (subject.tissues[torch.from_numpy(t1w == 0)] == 0).all()

    def test_a_lesion_mask_is_no_tissue_map(self, tmp_path, write, smooth, write_subject):
        write_subject(tmp_path, 0, segmented=False)
        assert read_pair(tmp_path).tissues is None
        write(tmp_path / "seg.nii.gz", (smooth(0) > 600).astype(np.uint8))
        assert read_pair(tmp_path).tissues is None

    @pytest.mark.parametrize(
        ("name", "spacing", "sharp"),
        [
            ("infant05", (1, 1, 1), (0, 1, 2)),
            ("clinical", (0.9, 0.9, 4), (0, 1)),
            ("sagittal", (4, 0.9, 0.9), (1, 2)),
            ("ms19", (1, 1, 1), (0, 1)),  # resampled from thick slices by its authors
        ],
    )
    def test_which_axes_are_a_true_reference(self, tmp_path, name, spacing, sharp, write, smooth):
        for modality in ("T1w", "T2w"):
            write(tmp_path / name / f"{modality}.nii.gz", smooth(0), np.diag((*spacing, 1)))
        assert read_pair(tmp_path / name).sharp == sharp

    def test_a_test_subject_cannot_validate(self, folder):
        with pytest.raises(ValueError, match=r"'infant99' cannot validate: .*infant01"):
            load(folder, leave_out=("infant99",))

    def test_all_kept_for_validation_is_nothing_to_train_on(self, folder):
        data = load(folder)
        alone = TrainingData(data.subjects[:1], [])
        with pytest.raises(ValueError, match="all subjects are kept"):
            alone.without(("infant01",))

    def test_a_person_is_left_out_with_all_sessions(self, folder):
        data = load(folder)
        names = ("sub-1_ses-1", "sub-1_ses-2", "sub-10", "sub-2")
        people = [dataclasses.replace(data.subjects[0], name=name) for name in names]
        rest = TrainingData(people, []).without(("sub-1",))
        assert [s.name for s in rest.subjects] == ["sub-10", "sub-2"]

    def test_places_lie_in_the_head(self, folder):
        data = load(folder)
        for image, places in (
            (data.subjects[0].lead > HEAD, data.subjects[0].places),
            (data.label_maps[0].labels > 0, data.label_maps[0].places),
            (data.label_maps[0].labels % 30 > 0, data.label_maps[0].brain_places),
        ):
            assert 0.08 < len(places) / image.sum().item() < 0.2
            assert image[tuple(torch.from_numpy(places).long().T)].all()

    def test_a_folder_without_a_split_or_without_subjects(self, tmp_path):
        with pytest.raises(ValueError, match="says who trains and who tests"):
            load(tmp_path)
        (tmp_path / "split.csv").write_text("subject,split\ninfant01,test\n")
        with pytest.raises(ValueError, match="nothing to train on"):
            load(tmp_path)
