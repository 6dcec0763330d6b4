"""Model cards: the check case, the page, and results that are merged into them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from nexusinr.errors import InputError
from nexusinr.evaluation import cards
from nexusinr.models import check_case, weights
from nexusinr.models.iconet import ICONet, ICONetConfig
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig

BENCHMARKS = Path(__file__).resolve().parents[1] / "Benchmarks"

SMALL = NexusINRConfig(features=4, growth=4, blocks=1, layers=1, decoder_width=8, attention_width=4)
PLAIN = NexusINRConfig(
    features=4, growth=4, blocks=1, layers=1, decoder_width=8,
    multi_modal_fusion=False, cross_attention=False, segmentation_enhanced=False,
)  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder of the user's own."""
    monkeypatch.setenv("NEXUSINR_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """A network whose every weight matters; a fresh one predicts plain interpolation."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


NETWORKS = {
    "NexusINR": lambda: awake(NexusINR(SMALL)),
    "ArSSR": lambda: awake(NexusINR(PLAIN)),
    "ICONet": lambda: awake(ICONet(ICONetConfig(features=4, blocks=1))),
}


def saved(home: Path, kind: str, name: str = "small") -> weights.Card:
    network = NETWORKS[kind]()
    card = {
        "name": name,
        "architecture": type(network).__name__,
        "config": network.config.to_dict(),
        "version": "3",
    }
    weights.save(network, home, card)
    return weights.find(name)


@pytest.mark.parametrize("kind", NETWORKS)
def test_saved_weights_repeat_their_check_case(kind, home):
    saved(home, kind)
    network, card = weights.load("small")
    assert card.details["check_case"] == check_case.compute(network)
    assert check_case.compare(card.name, card.details, network)


def parts(network: torch.nn.Module) -> list[torch.nn.Module]:
    """Encoders, heads and so on, one by one; not the one that serves the training alone."""
    children = [child for name, child in network.named_children() if name != "classifier"]
    lists = [child for child in children if isinstance(child, torch.nn.ModuleList)]
    inner = [part for children_of in lists for part in children_of]
    return inner + [child for child in children if child not in lists]


@pytest.mark.parametrize("kind", ["NexusINR", "ICONet"])
def test_a_case_notices_a_change_of_any_part(kind, home):
    saved(home, kind)
    network, card = weights.load("small")
    for part in parts(network):
        before = {key: value.clone() for key, value in part.state_dict().items()}
        awake(part)
        with pytest.raises(InputError, match=r"small: its check case gives .* on this machine"):
            check_case.compare(card.name, card.details, network)
        part.load_state_dict(before)
    assert check_case.compare(card.name, card.details, network)


def test_values_of_a_case_are_what_they_are_called():
    network = NETWORKS["ArSSR"]()
    for decoder in network.decoder:
        torch.nn.init.zeros_(decoder.head.weight)
        torch.nn.init.zeros_(decoder.head.bias)
    rows = {row["output"]: row for row in check_case.compute(network)["outputs"]}
    assert set(rows) == {"T1w", "T2w"}
    for row in rows.values():  # interpolated waves around a half
        assert row["mean"] == pytest.approx(0.5, abs=0.05)
        assert 0.05 < row["deviation"] < 0.3
        assert 4 * row["deviation"] < 1.2 * row["range"]
        assert all(abs(row[f"value {n}"] - 0.5) < row["range"] for n in (1, 2, 3))


def test_a_case_leaves_the_network_as_it_is():
    network = NETWORKS["NexusINR"]().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    check_case.compute(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_architectures_without_a_case():
    with pytest.raises(InputError, match="unknown architecture 'Linear'"):
        check_case.compute(torch.nn.Linear(1, 1))


def change_card(home: Path, case: object) -> None:
    file = home / "small.json"
    details = json.loads(file.read_text())
    if case is None:
        del details["check_case"]
    else:
        details["check_case"] = case
    file.write_text(json.dumps(details))


@pytest.mark.parametrize("case", [[], {}, {"tolerance": 1e-3, "outputs": [{"output": "T1w"}]}])
def test_a_case_that_cannot_be_read(case, home):
    saved(home, "ArSSR")
    change_card(home, case)
    network, card = weights.load("small")
    with pytest.raises(InputError, match="check case in its card cannot be read"):
        check_case.compare(card.name, card.details, network)


def test_verify_repeats_the_case(command, home):
    card = saved(home, "NexusINR")
    status, out, err = command("models", "verify", "small")
    assert (status, err) == (0, "")
    assert f"SHA-256 {card.sha256}; check case repeated" in out
    case = card.details["check_case"]
    case["outputs"][0]["mean"] += 2e-3 * case["outputs"][0]["range"]
    change_card(home, case)
    status, out, err = command("models", "verify", "small")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "small: its check case gives T1w mean" in err
    change_card(home, None)
    status, out, _ = command("models", "verify", "small")
    assert (status, "no check case in its card" in out) == (0, True)


def test_an_imported_model_keeps_its_case(home, tmp_path, command):
    network = NETWORKS["ICONet"]()
    names = {"name": "mine", "architecture": "ICONet", "version": "1"}
    file = weights.save(network, tmp_path, {**names, "config": network.config.to_dict()})
    weights.import_weights(file)
    assert "check case repeated" in command("models", "verify", "mine")[1]


# --- the page ---------------------------------------------------------------------------------

SCORES = [
    {"subject": s, "modality": "T1w", "method": m, "psnr": p, "ssim": 0.9, "lpips": None}
    for s, m, p in (
        ("child1", "trilinear", 28.25),
        ("child1", "small", 31.5),
        ("child2", "trilinear", 29.125),
        ("child2", "small", 32.375),
    )
]
CARD = {
    "name": "small",
    "architecture": "NexusINR",
    "config": {"features": 4, "mutual_guidance": False},
    "version": "3 steps",
    "licence": "Apache-2.0",
    "intended_use": "Research | nothing else.",
    "limits": "Many.",
    "training": {"subjects": ["child3", "child4"], "hours": 1.25, "gain": {"t1w": 2.5}},
    "evaluation": {"protocol": "brats", "scores": SCORES},
    "safety": {
        "gates": [
            {"model": "small", "name": "lesions are kept", "figure": 0.125, "passed": False},
            {"model": "small", "name": "ratio 1", "figure": 61.5, "passed": True},
        ]
    },
    "something_new": [{"setting": "a", "value": 7.75}],
    "sha256": "ab" * 32,
}


def figures(value: object) -> list[str]:
    """Every plain value of a card, as text."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in figures(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in figures(inner)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def test_the_page_says_all_that_the_card_says():
    page = cards.page(CARD)
    for text in figures(CARD):
        assert text.replace("|", "\\|") in page
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings[0] == "# small"
    order = ("Intended use", "Limits", "Training", "Evaluation", "Safety", "Config")
    assert [h for h in headings if h[3:] in order] == [f"## {name}" for name in order]
    assert "## Something new" in headings
    assert "| small | lesions are kept | 0.125 | **FAILED** |" in page
    assert "| small | ratio 1 | 61.5 | passed |" in page
    assert "| Mutual guidance | no |" in page
    assert "| T1w | small | 31.94 [31.50, 32.38] | +3.25" in page  # a mean of the scores above


def test_the_page_has_nothing_of_its_own():
    """No figure stands on the page of a card that has none."""
    bare = {key: CARD[key] for key in ("name", "architecture", "licence")}
    page = cards.page({**bare, "config": {}, "version": "x", "sha256": "y"})
    for text in ("Apache-2.0", "SHA-256"):
        page = page.replace(text, "")
    assert not any(letter.isdigit() for letter in page)


def test_figures_stand_with_their_intervals():
    row = {"Method": "cubic", "Dice": 79.482, "Dice low": 77.4, "Dice high": 83.2, "gain": None}
    row |= {"Dice subjects": 3.0, "gain low": None, "gain high": None, "gain subjects": None}
    card = {"name": "some", "tables": {"table5": [row]}}
    text = cards.page(card)
    assert "### Table 5 of the paper" in text
    assert "| Method | Dice | gain |" in text
    assert "| cubic | 79.48 [77.4, 83.2] (3) | - |" in text


def test_the_page_lies_beside_the_card(tmp_path):
    file = tmp_path / "small.json"
    file.write_text(json.dumps(CARD))
    assert cards.write_page(file) == tmp_path / "small.md"
    assert (tmp_path / "small.md").read_text() == cards.page(CARD)
    assert {p.name for p in tmp_path.iterdir()} == {"small.json", "small.md"}


def bundled() -> list[weights.Card]:
    return [card for card in weights.available().values() if card.is_bundled]


@pytest.mark.parametrize("card", bundled(), ids=lambda card: card.name)
def test_bundled_weights_have_their_page_and_case(card):
    """After a change of a card: Testing/Benchmarks/publish_card.py NAME."""
    assert card.path.with_suffix(".md").read_text(encoding="utf-8") == cards.page(card.details)
    network, _ = weights.load(card.name)
    assert check_case.compare(card.name, card.details, network)


# --- publishing -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def publish_card():
    path = BENCHMARKS / "publish_card.py"
    spec = importlib.util.spec_from_file_location("publish_card", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_results_are_merged_into_the_card(home, tmp_path, publish_card):
    saved(home, "ArSSR")
    first, second = tmp_path / "first", tmp_path / "second"
    header = "protocol,given,subject,modality,method,psnr,ssim,lpips,weights,data\n"
    for folder, gain in ((first, "31.5"), (second, "33.5")):
        folder.mkdir()
        (folder / "scores.csv").write_text(
            f"{header}brats,both,child1,T1w,trilinear,28.5,0.9,weights not on disk,,d\n"
            f"brats,both,child1,T1w,small,{gain},0.95,0.125,w,d\n"
            "brats,both,child1,T1w,other,20.5,0.5,0.25,w,d\n"
        )
    gates = [
        {"model": m, "name": "ratio 1", "figure": 61.5, "passed": True} for m in ("small", "x")
    ]
    rates = [{"method": m, "3 mm": 0.25} for m in ("trilinear", "small", "x")]
    tables = dict.fromkeys(("erasure", "hallucinations_per_litre", "leaked_contrast"), rates)
    (second / "safety.json").write_text(json.dumps({"plan": {"size": 9}, "gates": gates, **tables}))
    head = {"seconds": 148.5, "steps": {"decoding": {"seconds": 60.5, "gflop": 3}}}
    measured = {"model": "small", "machine": "m", "device": "d", "whole_head": head}
    (second / "benchmark.json").write_text(json.dumps(measured))
    other = tmp_path / "other"
    other.mkdir()
    (other / "benchmark.json").write_text(json.dumps({**measured, "model": "x"}))
    (second / "table2.csv").write_text("Baseline,PSNR\nx,30.25\n")

    page = publish_card.publish("small", [first, second, other]).read_text()

    details = weights.find("small").details
    scores = {row["method"]: row for row in details["evaluation"]["scores"]}
    assert set(scores) == {"trilinear", "small"}
    assert (scores["small"]["psnr"], scores["trilinear"]["lpips"]) == (33.5, None)
    assert [row["model"] for row in details["safety"]["gates"]] == ["small"]
    assert [row["method"] for row in details["safety"]["erasure"]] == ["trilinear", "small"]
    assert details["whole_head"]["seconds"] == 148.5
    assert details["whole_head"]["steps"] == {"decoding": 60.5}
    assert details["tables"] == {"table2": [{"Baseline": "x", "PSNR": 30.25}]}
    assert page == cards.page(details)
    weights.verify(weights.find("small"))


def test_scores_of_an_older_card_are_kept(publish_card):
    known = {"protocol": "brats", "scores": SCORES}
    new = {**SCORES[1], "protocol": "orthogonal-3", "given": "both"}
    rows = publish_card.merged_scores(known, [new])["scores"]
    assert [row["protocol"] for row in rows] == ["brats"] * 4 + ["orthogonal-3"]


def test_a_missing_case_is_added(home, publish_card):
    saved(home, "ArSSR")
    change_card(home, None)
    publish_card.publish("small", [])
    network, card = weights.load("small")
    assert check_case.compare(card.name, card.details, network)
