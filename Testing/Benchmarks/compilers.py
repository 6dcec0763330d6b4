"""What compilers and other runtimes would gain on this machine's CPU, measured in one run.

    pip install onnx onnxruntime onnxscript openvino
    python Testing/Benchmarks/compilers.py

Prints two tables: a scan encoded, and a block of the target lattice decoded. Ours is what
`nexusinr upsample` does here. Runtimes that are not installed are left out; torch.compile needs a
C++ compiler. To be used, one would have to make the whole run, of which encoding takes about a half
and decoding a quarter (speed/benchmark.md), 20 % quicker. speed/compilers.md has what it gave.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from nexusinr.evaluation.benchmark.timing import best_of
from nexusinr.evaluation.markdown import table
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.implicit import PIECE_VOXELS, TILE, EncodedScan, encode
from nexusinr.inference.progress import Progress
from nexusinr.inference.session import Session
from nexusinr.models.nexus_inr import T1W, T2W, Encoding, NexusINR, scan_conditions
from nexusinr.models.sampling import LatticeMap

#: Voxels of the scan that is encoded.
SCAN = (96, 96, 64)

#: Runs of each way, after one that does not count; the best counts.
RUNS = 3

Work = Callable[[], object]


def main() -> None:
    """Measures what is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    session = Session("nexus-inr", "cpu")
    with torch.inference_mode():
        print(f"{session.device.description}; torch {torch.__version__}\n")
        print(compared(encoding_ways(session), session), "\n")
        print(compared(decoding_ways(session), session))


def compared(ways: dict[str, Work], session: Session) -> str:
    """A row for each way, and how many times as long as the first it takes."""
    seconds = {name: best_of(work, session.device, RUNS) for name, work in ways.items()}
    ours = next(iter(seconds.values()))
    return table(
        [
            {"way": name, "s": f"{took:.3f}", "times ours": f"{took / ours:.2f}"}
            for name, took in seconds.items()
        ]
    )


def encoding_ways(session: Session) -> dict[str, Work]:
    """One of the encoders of a T1w scan; ours encodes with both, and is timed for one."""
    assert isinstance(session.network, NexusINR)
    network = session.network
    encoder = network.shared[T1W]
    image, grid = torch.rand(1, 1, *SCAN), Grid(SCAN, Affine.from_parts((1, 1, 2)))
    conditions = scan_conditions(torch.tensor([[1.0, 1, 2]]), torch.tensor([[1.0, 1, 2]]))
    both = network.encoders

    def ours() -> EncodedScan:
        network.encoders = lambda modality: [encoder]  # type: ignore[method-assign]
        try:
            return encode(network, image, conditions, T1W, grid, Progress(), PIECE_VOXELS)
        finally:
            network.encoders = both  # type: ignore[method-assign]

    compiled = torch.compile(encoder)
    ways: dict[str, Work] = {
        "ours: plane by plane": ours,
        "torch, layer by layer, float32": lambda: encoder(image, conditions),
        "torch.compile, float32": lambda: compiled(image, conditions),
    }
    if importlib.util.find_spec("onnxscript") is not None:
        ways |= _runtimes(encoder, image, conditions)
    return ways


def _runtimes(encoder: nn.Module, image: Tensor, conditions: Tensor) -> dict[str, Work]:
    ways: dict[str, Work] = {}
    values = {"image": image.numpy(), "conditions": conditions.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encoder.onnx"
        torch.onnx.export(
            encoder, (image, conditions), file, input_names=list(values), dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
        if importlib.util.find_spec("onnxruntime") is not None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            run = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
            ways["ONNX Runtime, float32"] = lambda: run.run(None, values)
        if importlib.util.find_spec("openvino") is not None:
            import openvino

            for precision in ("f32", "bf16"):
                settings = {
                    "INFERENCE_PRECISION_HINT": precision,
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                }
                model = openvino.Core().compile_model(file, "CPU", settings)
                ways[f"OpenVINO, {precision}"] = lambda model=model: model(values)
    return ways


def decoding_ways(session: Session) -> dict[str, Work]:
    """Both modalities of a block, read and decoded by the same network."""
    assert isinstance(session.network, NexusINR)
    network = session.network
    target = Grid((TILE,) * 3, Affine.from_parts((1, 1, 1), None, (8, 8, 8))).pad(1)
    sampled = {}
    for modality, spacing in ((T1W, (1, 1, 2)), (T2W, (1, 4, 1))):
        shape = tuple(64 // s for s in spacing)
        told = torch.tensor([[float(s) for s in spacing]])
        maps = torch.rand(1, *shape, 1 + 2 * network.config.features)
        encoding = Encoding(maps, scan_conditions(told, told))
        lattice = LatticeMap([Grid(shape, Affine.from_parts(spacing))], [target])
        sampled[modality] = network.sample(encoding, lattice)

    def with_(decode: Callable[..., object]) -> Work:
        return lambda: [decode(m, sampled[m], sampled[1 - m]) for m in (T1W, T2W)]

    return {"ours": with_(network.decode), "torch.compile": with_(torch.compile(network.decode))}


if __name__ == "__main__":
    main()
