"""Weights on disk: saved, verified, imported, refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nexusinr.errors import InputError
from nexusinr.models import weights
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig

SMALL = NexusINRConfig(features=4, growth=4, blocks=1, layers=1, decoder_width=8, attention_width=4)


def card(name: str = "small") -> dict:
    plain = SMALL.to_dict()
    return {"name": name, "architecture": "NexusINR", "config": plain, "version": "3", "by": "us"}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder of the user's own."""
    monkeypatch.setenv("NEXUSINR_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


@pytest.fixture
def network() -> NexusINR:
    torch.manual_seed(0)
    return NexusINR(SMALL)


def test_what_was_saved_is_loaded(home, network):
    file = weights.save(network, home, card())
    assert {p.name for p in home.iterdir()} == {"small.safetensors", "small.json"}
    loaded, found = weights.load("small")
    assert (found.name, found.version, found.is_bundled) == ("small", "3", False)
    assert found.details["by"] == "us"
    assert found.sha256 == weights.sha256(file)
    assert not loaded.training
    wanted = network.state_dict()
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, wanted[key].half().float())


def test_saved_as_half_precision(home, network):
    tensors = load_file(weights.save(network, home, card()))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_an_unknown_name_lists_the_known_ones(home, network):
    weights.save(network, home, card())
    with pytest.raises(InputError, match=r"unknown model 'smal': choose one of .*small"):
        weights.load("smal")


@pytest.mark.parametrize("change", ["a flipped bit", "a shorter file", "no file"])
def test_changed_weights_are_never_loaded(change, home, network):
    file = weights.save(network, home, card())
    content = bytearray(file.read_bytes())
    if change == "a flipped bit":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    elif change == "a shorter file":
        file.write_bytes(content[:-8])
    else:
        file.unlink()
    with pytest.raises(InputError, match=r"small\.safetensors: the weights"):
        weights.verify(weights.find("small"))
    with pytest.raises(InputError, match=r"small\.safetensors: the weights"):
        weights.load("small")


def test_a_card_that_is_no_card(home):
    home.mkdir(parents=True)
    for text in ("{", "[]", '{"name": "small"}'):
        (home / "small.json").write_text(text)
        with pytest.raises(InputError, match=r"small\.json: not a model card"):
            weights.available()


def test_weights_that_do_not_fit_their_card(home, network):
    wrong = {**card(), "config": {**SMALL.to_dict(), "features": 5}}
    weights.save(network, home, wrong)
    with pytest.raises(InputError, match="do not fit their card"):
        weights.load("small")


def test_import_verify_and_remove(home, network, tmp_path):
    file = weights.save(network, tmp_path / "training", card("mine"))
    imported = weights.import_weights(file)
    assert imported.path == home / "mine.safetensors"
    assert weights.sha256(imported.path) == weights.sha256(file)
    assert {p.name for p in home.iterdir()} == {"mine.safetensors", "mine.json"}
    weights.verify(imported)
    assert "mine" in weights.available()
    weights.remove("mine")
    assert list(home.iterdir()) == []
    assert file.exists()
    with pytest.raises(InputError, match="unknown model 'mine'"):
        weights.remove("mine")


def carried(network: NexusINR, **changes: object) -> dict[str, str]:
    text = json.dumps({key: {**card(), **changes}[key] for key in weights.REQUIRED})
    return {"card": text}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architecture": "UNet"}, "unknown architecture 'UNet'"),
        ({"config": {"features": 9}}, "do not fit the network"),
        ({"config": {"fetures": 4}}, "configuration does not fit this version"),
        ({"config": {"features": -4}}, "configuration does not fit this version"),
        ({"config": {"encoder": "vgg"}}, "configuration does not fit this version"),
        ({"config": None}, "configuration does not fit this version"),
        ({"name": "../escape"}, "cannot be the name of a model"),
        ({"name": ".hidden"}, "cannot be the name of a model"),
        ({"name": ""}, "cannot be the name of a model"),
    ],
)
def test_foreign_cards_are_refused(changes, problem, home, network, tmp_path):
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, tmp_path / "other.safetensors", carried(network, **changes))
    with pytest.raises(InputError, match=problem):
        weights.import_weights(tmp_path / "other.safetensors")
    assert not home.exists() or list(home.iterdir()) == []


def test_files_without_a_card_are_refused(home, network, tmp_path):
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    for number, header in enumerate((None, {"card": "[1]"}, {"card": '{"name": "x"}'})):
        save_file(tensors, tmp_path / f"{number}.safetensors", header)
        with pytest.raises(InputError, match=f"{number}.safetensors: carries no model card"):
            weights.import_weights(tmp_path / f"{number}.safetensors")


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_nothing_is_unpickled(home, tmp_path, capsys):
    for name, content in {
        "plain.pt": pickle.dumps(Trap()),
        "named.safetensors": pickle.dumps(Trap()),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: not a safetensors file"):
            weights.import_weights(tmp_path / name)
    torch.save({"trap": Trap()}, tmp_path / "torch.pt")
    with pytest.raises(InputError, match=r"torch\.pt: not a safetensors file"):
        weights.import_weights(tmp_path / "torch.pt")
    assert capsys.readouterr().out == ""


def test_a_missing_file(home, tmp_path):
    with pytest.raises(InputError, match=r"gone\.safetensors: no such weights file"):
        weights.import_weights(tmp_path / "gone.safetensors")


def test_bundled_weights_are_whole_and_stay(home, network, tmp_path):
    bundled = [c for c in weights.available().values() if c.is_bundled]
    for found in bundled:
        weights.verify(found)
        with pytest.raises(InputError, match="came with the package"):
            weights.remove(found.name)
        file = weights.save(network, tmp_path, card(found.name))
        with pytest.raises(InputError, match="name of a bundled model"):
            weights.import_weights(file)
    assert sum(c.path.stat().st_size for c in bundled) < 12e6
