"""Images from label maps: repeatable, dark air, tissues and lesions told apart, new every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nexusinr.labels import CSF, DEEP_GREY, GREY, LESION, WHITE
from nexusinr.training.synthesis import TYPICAL, random_images, randomise_contrast

#: Label to tissue: air, three named tissues, two of the head that are none of them.
TISSUE_OF = torch.tensor([0, CSF, GREY, WHITE, 0, 0], dtype=torch.uint8)
WHITE_LABEL = 3


def head(size: int = 24) -> Tensor:
    """Shells from the middle outwards: white matter, grey matter, fluid, skull, air."""
    steps = torch.arange(size) - (size - 1) / 2
    radius = (steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2).sqrt()
    labels = torch.zeros(size, size, size, dtype=torch.uint8)
    for label, limit in ((4, 0.5), (1, 0.44), (2, 0.38), (3, 0.3)):
        labels[radius < limit * size] = label
    return labels


LABELS = head()


def images(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return drawn_from(LABELS, seed)


def drawn_from(labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    (t1w, t2w), tissues = random_images(labels[None], TISSUE_OF[None], generator)
    return t1w[0], t2w[0], tissues[0]


def contrast(t1w: Tensor, t2w: Tensor, tissue: Tensor) -> tuple[float, float]:
    return t1w[tissue].mean().item(), t2w[tissue].mean().item()


SEEDS = range(24)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Tensor, Tensor, Tensor]]:
    return [images(seed) for seed in SEEDS]


class TestRandomImages:
    def test_the_same_generator_gives_the_same_images(self, drawn):
        torch.manual_seed(99)  # of no consequence
        for once, again in zip(drawn[3], images(3), strict=True):
            assert torch.equal(once, again)
        assert not torch.equal(drawn[3][0], drawn[4][0])

    def test_shapes_range_and_air(self, drawn):
        for t1w, t2w, tissues in drawn:
            for image in (t1w, t2w):
                assert image.shape == LABELS.shape
                assert image.dtype == torch.float32
                assert image.min() >= 0
                assert image.max() <= 1.2
                assert (image[LABELS == 0] == 0).all()
            assert tissues.dtype == torch.uint8

    def test_tissues_are_those_of_the_labels_but_for_lesions(self, drawn):
        plain = TISSUE_OF[LABELS.long()]
        for _, _, tissues in drawn:
            same = (tissues == plain) | (tissues == LESION)
            assert same.all()
            outside = (plain != WHITE) & (plain != GREY) & (plain != DEEP_GREY)
            assert (tissues[outside] != LESION).all()

    def test_some_have_lesions_of_many_sizes_and_some_have_none(self, drawn):
        sizes = [int((tissues == LESION).sum()) for _, _, tissues in drawn]
        assert 0.25 < np.mean([size > 0 for size in sizes]) < 0.75
        found = [size for size in sizes if size]
        assert max(found) > 5 * min(found)

    def test_contrast_is_typical_often_but_not_always(self, drawn):
        near = []
        for t1w, t2w, tissues in drawn:
            inner = tissues == WHITE
            found = contrast(t1w, t2w, inner)
            near.append(np.abs(np.subtract(found, TYPICAL[WHITE])).max() < 0.3)
        assert 0.4 < np.mean(near) < 0.95

    def test_lesions_are_bright_on_t2w_and_dark_on_t1w_where_contrast_is_typical(self, drawn):
        seen = 0
        for t1w, t2w, tissues in drawn:
            white, lesion = contrast(t1w, t2w, tissues == WHITE), tissues == LESION
            fluid = contrast(t1w, t2w, tissues == CSF)
            typical = white[0] - fluid[0] > 0.35 and fluid[1] - white[1] > 0.3
            if typical and lesion.sum() > 60:
                within = contrast(t1w, t2w, lesion)
                assert within[0] < white[0] - 0.05
                assert within[1] > white[1] + 0.05
                seen += 1
        assert seen >= 2

    def test_texture_within_a_tissue_and_soft_borders(self, drawn):
        spreads = [t1w[tissues == WHITE].std().item() for t1w, _, tissues in drawn]
        assert min(spreads) > 1e-3
        t1w, _, tissues = drawn[0]
        assert t1w[tissues == WHITE].unique().numel() > 100

    def test_without_white_matter_there_is_no_lesion(self):
        labels = torch.where(LABELS == WHITE_LABEL, 2, LABELS)
        for seed in SEEDS[:8]:
            tissues = drawn_from(labels, seed)[2]
            assert (tissues != LESION).all()

    def test_a_map_of_air_stays_air(self):
        air = torch.zeros(8, 8, 8, dtype=torch.uint8)
        t1w, t2w, tissues = drawn_from(air, 0)
        assert not t1w.any()
        assert not t2w.any()
        assert not tissues.any()


def remapped(image: Tensor, seed: int) -> Tensor:
    return randomise_contrast(image[None], torch.Generator().manual_seed(seed))[0]


class TestBatches:
    def test_each_example_has_contrast_texture_and_lesions_of_its_own(self):
        generator = torch.Generator().manual_seed(1)
        batch = LABELS[None].expand(8, -1, -1, -1)
        images, tissues = random_images(batch, TISSUE_OF.expand(8, -1), generator)
        for image in images:
            means = torch.stack([one[LABELS == WHITE_LABEL].mean() for one in image])
            assert means.diff().abs().min() > 1e-3
        lesions = (tissues == LESION).flatten(1).sum(dim=1)
        assert (lesions == 0).any()
        assert (lesions > 0).any()

    def test_each_example_has_a_label_table_of_its_own(self):
        tables = torch.stack((TISSUE_OF, torch.zeros_like(TISSUE_OF)))
        batch = LABELS[None].expand(2, -1, -1, -1)
        _, tissues = random_images(batch, tables, torch.Generator().manual_seed(0))
        assert set(tissues[0].unique().tolist()) >= {CSF, GREY, WHITE}
        assert not tissues[1].any()

    def test_only_what_is_wanted(self):
        generator = torch.Generator().manual_seed(0)
        images, _ = random_images(LABELS[None], TISSUE_OF[None], generator, modalities=(1,))
        assert len(images) == 1

    def test_contrast_is_remapped_for_each(self):
        image = TestRandomiseContrast.IMAGE.expand(6, -1)
        found = randomise_contrast(image, torch.Generator().manual_seed(0))
        assert (found[:, 100].sort().values.diff() > 1e-4).all()


class TestRandomiseContrast:
    IMAGE = torch.cat((torch.zeros(50), torch.linspace(0.01, 1.2, 200)))

    def test_air_stays_air_and_order_is_kept_or_reversed(self):
        rising = 0
        for seed in range(40):
            found = remapped(self.IMAGE, seed)
            assert (found[:50] == 0).all()
            inside = found[50:].diff()
            assert (inside >= -1e-6).all() or (inside <= 1e-6).all()
            assert torch.isfinite(found).all()
            assert found.min() >= 0
            rising += bool((inside >= -1e-6).all())
        assert 15 < rising < 33

    def test_the_same_generator_gives_the_same_image(self):
        first, again, other = (remapped(self.IMAGE, seed) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_the_image_itself_is_left_alone(self):
        image = self.IMAGE.clone()
        randomise_contrast(image, torch.Generator().manual_seed(0))
        assert torch.equal(image, self.IMAGE)
