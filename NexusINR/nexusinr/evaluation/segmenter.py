"""A small U-Net that finds tissues in a pair of images: a yardstick for table 5, no product.

It is trained once, on original images, and then applied to what every method restores: whatever it
finds less well there was lost on the way. It is not the segmentation of Nexus-INR.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from scipy.ndimage import find_objects
from torch import Tensor

from nexusinr.errors import Cancelled, InputError
from nexusinr.evaluation.subjects import Pair, read_tissues, read_truths
from nexusinr.labels import CLASSES
from nexusinr.resample import interpolate

Array = NDArray[np.float32]

#: Voxels inside the brain that have no label: nothing is learned from them.
UNKNOWN = 255

LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class SegmenterConfig:
    """Sizes of the network.

    Attributes:
        channels: of each level of the U-Net; every further level halves the resolution.
        classes: of tissues, background included.
        window: voxels along each side of what it sees at once, in training and afterwards.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    classes: int = CLASSES
    window: int = 64


@dataclass(frozen=True)
class Example:
    """Both images, (2, I, J, K), 0 ... 1, and tissues, (I, J, K) uint8, UNKNOWN in places."""

    images: Tensor
    tissues: Tensor


class Segmenter:
    """A trained network, ready to be applied.

    Attributes:
        network: 2 images in, a score for each class out.
        config: its sizes.
        digest: first digits of the SHA-256 of its weights.
    """

    def __init__(self, network: UNet, config: SegmenterConfig, device: str = "cpu") -> None:
        self.network, self.config = network.eval(), config
        self._device = torch.device(device)
        digest = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        self._digest = digest.hexdigest()[:12]
        self.network.to(self._device)

    @property
    def digest(self) -> str:
        """First digits of the SHA-256 of the weights."""
        return self._digest

    @torch.inference_mode()
    def __call__(self, t1w: Array, t2w: Array) -> NDArray[np.uint8]:
        """Tissue values (i, j, k) of two images at 0 ... 1 on one lattice."""
        images = torch.from_numpy(np.stack([t1w, t2w]).astype(np.float32))[None]
        scores = sliding_window_inference(
            images.to(self._device),
            (self.config.window,) * 3,
            2,
            self.network,
            overlap=0.25,
            mode="gaussian",
        )
        assert isinstance(scores, Tensor)
        found: NDArray[np.uint8] = scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
        return found

    def save(self, path: Path) -> None:
        """Weights as safetensors; the file says which network they are of, and appears whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.cpu().contiguous() for name, t in self.network.state_dict().items()}
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, {"segmenter": json.dumps(asdict(self.config))})
        os.replace(partial, path)


def load(path: Path, device: str = "cpu") -> Segmenter:
    """What `Segmenter.save` wrote. Raises InputError for any other file."""
    if not path.is_file():
        raise InputError(f"{path}: no such segmenter; train one with --train-segmenter MINUTES")
    try:
        with safe_open(path, framework="pt") as opened:
            found = json.loads((opened.metadata() or {})["segmenter"])
        config = SegmenterConfig(tuple(found.pop("channels")), **found)
        network = build(config)
        network.load_state_dict(load_file(path))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path.name}: not a segmenter ({reason}); train another one") from None
    return Segmenter(network, config, device)


def build(config: SegmenterConfig) -> UNet:
    """An untrained network."""
    return UNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=config.classes,
        channels=config.channels,
        strides=(2,) * (len(config.channels) - 1),
        num_res_units=2,
        norm="batch",  # not of the instance: that would depend on how much air a window holds
    )


def read_examples(pairs: Sequence[Pair]) -> list[Example]:
    """Original images with their tissues, those that have any; T2w on the lattice of T1w.

    Raises InputError where none has tissues.
    """
    examples = []
    for pair in pairs:
        t1w, t2w = read_truths(pair)
        tissues = read_tissues(pair, t1w.scan.grid)
        if tissues is None:
            continue
        grid = t1w.scan.grid
        same = grid.same_as(t2w.scan.grid)
        second = t2w.scan.data if same else interpolate(t2w.scan, grid, "cubic")
        second = np.clip(second / np.float32(t2w.reference.scale), 0, 1)
        if not pair.tumour:
            tissues[t1w.reference.mask & (tissues == 0)] = UNKNOWN
        head = find_objects((t1w.reference.mask | (tissues > 0)).astype(np.uint8))[0]
        images = np.stack([t1w.reference.unit[head], second[head]]).astype(np.float16)
        examples.append(Example(torch.from_numpy(images), torch.from_numpy(tissues[head].copy())))
    if not examples:
        raise InputError("no training subject has a map of tissues: no segmenter can be trained")
    return examples


def train(
    examples: Sequence[Example],
    minutes: float,
    config: SegmenterConfig | None = None,
    most_steps: int = 100_000,
    batch: int = 2,
    device: str = "cpu",
    seed: int = 0,
    log: Callable[[str], None] = print,
    cancelled: Callable[[], bool] = lambda: False,
) -> Segmenter:
    """Trains until the time or the steps are used up.

    Args:
        examples: see `read_examples`.
        minutes: that training may take.
        config: sizes of the network.
        most_steps: that it may take.
        batch: windows a step.
        device: ``cpu``, ``cuda`` and so on.
        seed: of all that is drawn.
        log: told of the loss, now and then.
        cancelled: asked at every step; when it says True, Cancelled is raised.

    Cross-entropy and Dice loss, AdamW, learning rate falling along a cosine.
    """
    config = config or SegmenterConfig()
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = build(config).to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    begun, step, done, told = time.monotonic(), 0, 0.0, 0.0
    while done < 1:
        if cancelled():
            raise Cancelled("cancelled: the segmenter is not trained to its end")
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        drawn = [
            draw(examples[int(random.integers(len(examples)))], config.window, random)
            for _ in range(batch)
        ]
        images = torch.stack([example.images for example in drawn]).to(device)
        tissues = torch.stack([example.tissues for example in drawn]).to(device)
        value = loss(network(images), tissues)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        step += 1
        done = max((time.monotonic() - begun) / (60 * minutes), step / most_steps)
        if done >= told + 0.1:
            told = done
            log(f"segmenter: {min(done, 1):.0%}, step {step}, loss {value.item():.3f}")
    return Segmenter(network, config, device)


def loss(scores: Tensor, tissues: Tensor) -> Tensor:
    """Cross-entropy and Dice loss, both blind to what is UNKNOWN.

    scores: (B, classes, I, J, K). tissues: (B, I, J, K), uint8.
    """
    target = tissues.long()
    entropy = F.cross_entropy(scores, target, ignore_index=UNKNOWN)
    known = (target != UNKNOWN)[:, None]
    classes = scores.shape[1]
    wanted = F.one_hot(target.clamp(max=classes - 1), classes).movedim(-1, 1) * known
    overlap: Tensor = DiceLoss(include_background=False, batch=True)(
        scores.softmax(dim=1) * known, wanted
    )
    return entropy + overlap


def draw(example: Example, window: int, random: np.random.Generator) -> Example:
    """A window around some labelled voxel: flipped, its contrast and noise changed a little."""
    shape = np.array(example.tissues.shape)
    if (shape < window).any():
        example = _padded(example, np.maximum(window - shape, 0).tolist())
        shape = np.array(example.tissues.shape)
    inside = (example.tissues > 0).nonzero()
    middle = inside[random.integers(len(inside))].numpy() if len(inside) else shape // 2
    start = np.clip(middle - window // 2, 0, shape - window)
    i, j, k = (slice(int(a), int(a) + window) for a in start)
    flips = [axis for axis in (-3, -2, -1) if random.random() < 0.5]
    images = example.images[:, i, j, k].flip(flips).float()
    tissues = example.tissues[i, j, k].flip(flips)
    powers = torch.tensor(random.uniform(0.8, 1.25, 2), dtype=torch.float32)
    images = images ** powers[:, None, None, None]
    images = images + torch.randn_like(images) * float(random.uniform(0, 0.03)) * (images > 0)
    return Example(images.clamp(0, 1), tissues)


def _padded(example: Example, missing: list[int]) -> Example:
    ends = [end for size in reversed(missing) for end in (0, size)]
    return Example(F.pad(example.images, ends), F.pad(example.tissues, ends))
