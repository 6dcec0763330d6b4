"""Configurations: bases, what ships, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexusinr.models.encoders import receptive_radius
from nexusinr.models.iconet import ICONetConfig
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig
from nexusinr.training.config import SHIPPED, TrainConfig, difference, merged, read_yaml
from nexusinr.training.losses import LossWeights, StageWeights

PLACES = ("name", "out", "device", "data")


def shipped(name: str) -> TrainConfig:
    values = read_yaml(SHIPPED / f"{name}.yaml")
    assert values.pop("name") == name
    assert values.pop("out") == f"runs/{name}"
    return TrainConfig.from_dict({k: v for k, v in values.items() if k not in PLACES})


def test_every_one_that_ships_can_be_used():
    names = {file.stem for file in SHIPPED.glob("*.yaml")}
    assert names >= {"nexus-inr", "nexus-inr-paper", "iconet"}
    for name in names:
        shipped(name)
    assert shipped("nexus-inr").model == NexusINRConfig()
    assert shipped("nexus-inr-paper").model == NexusINRConfig.paper()
    iconet = shipped("iconet")
    assert (type(iconet.model), type(iconet.losses)) == (ICONetConfig, StageWeights)


def off(*switches):
    return dict.fromkeys(switches, False)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ablation-no-fusion", off("multi_modal_fusion")),
        ("ablation-no-attention", off("cross_attention")),
        ("ablation-no-segmentation", off("segmentation_enhanced")),
        ("ablation-none", off("multi_modal_fusion", "cross_attention", "segmentation_enhanced")),
        ("encoder-rescnn", {"encoder": "rescnn", "blocks": 5}),
        ("encoder-srresnet", {"encoder": "srresnet", "blocks": 5}),
        ("decoder-siren", {"decoder": "siren"}),
    ],
)
def test_rows_of_tables_2_to_4_differ_in_one_part_and_are_trained_alike(name, change):
    base, changed = shipped("ablation-full").to_dict(), shipped(name).to_dict()
    assert changed.pop("model") == {**base.pop("model"), **change}
    assert changed == base


@pytest.mark.parametrize("name", ["encoder-rescnn", "encoder-srresnet"])
def test_encoders_of_table_3_reach_equally_far(name):
    networks = [NexusINR(shipped(n).model) for n in (name, "ablation-full")]
    reach = {receptive_radius(network.shared[0]) for network in networks}
    assert len(reach) == 1


def test_a_file_changes_its_base_within_tables_too(tmp_path):
    (tmp_path / "below.yaml").write_text(
        "name: a\nout: b\nsteps: 3\nmodel: {features: 4, blocks: 2}\n"
    )
    (tmp_path / "above.yaml").write_text("base: below.yaml\nmodel: {blocks: 1}\nbatch: 2\n")
    found = read_yaml(tmp_path / "above.yaml")
    assert found == {"steps": 3, "model": {"features": 4, "blocks": 1}, "batch": 2}


def test_what_ships_is_a_base_anywhere(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: iconet.yaml\nsteps: 7\n")
    found = read_yaml(tmp_path / "mine.yaml")
    assert (found["architecture"], found["steps"]) == ("ICONet", 7)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("base: me.yaml", "me.yaml is its own base"), ("base: you.yaml", "neither beside it nor")],
)
def test_a_base_that_cannot_be(text, problem, tmp_path):
    file: Path = tmp_path / "me.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_yaml(file)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"architecture": "UNet"}, "architecture is 'UNet'"),
        ({"batch": 0}, "batch is 0"),
        ({"precision": "8"}, "precision is '8'"),
    ],
)
def test_values_that_cannot_be(values, problem):
    with pytest.raises(ValueError, match=problem):
        TrainConfig.from_dict(values)


def test_losses_belong_to_the_architecture():
    assert TrainConfig.from_dict({"losses": {"segmentation": 1.0}}).losses == LossWeights(
        segmentation=1.0
    )
    with pytest.raises(TypeError, match="segmentation"):
        TrainConfig.from_dict({"architecture": "ICONet", "losses": {"segmentation": 1.0}})


def test_merging_leaves_both_alone():
    below = {"a": {"b": 1}}
    assert merged(below, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert below == {"a": {"b": 1}}


def test_differences_in_words():
    assert difference({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 4}) == ["b (2, now 5)"]
