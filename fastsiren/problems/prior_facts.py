"""What a checkpoint of "prior" tells without the images that it was trained on."""

from __future__ import annotations

import os

from ..tensorfile import TensorFile
from .described import check
from .prior import PriorExperiment, Settings

__all__ = ["facts"]

_FIRST = {"set": "encoder.pixels.net.0.weight", "conv": "encoder.net.0.weight"}
_CONTEXTS = {
    "latent": "any pixels of an image; {refine} gradient steps on their error find its latent",
    "set": "any pixels of an image, as coordinates and samples in any order",
    "conv": "the pixels of an image that are known, with zeros in place of the others",
}


def facts(path: str | os.PathLike[str], found: TensorFile) -> list[tuple[str, str]]:
    """Name and text of what is known of it and its training.

    Args:
        path: Where it was read, for messages.
        found: What `fit.checkpoint.read` gave.

    Raises:
        InputError: Its description does not fit its tensors.
    """
    check(path, found, "space of images", _fits)
    settings, images = Settings(**found.description["settings"]), found.description["images"]
    model = _model(found)
    gain = found.description["figures"].get(PriorExperiment.merit)
    training = f"step {found.description['step']} of {settings.steps}, batch {settings.batch}, lr {settings.lr:g}"
    channels = _channels(found, model)
    colours = f"{settings.side}x{settings.side}, channels: {channels}"
    sizes = " -> ".join(map(str, [2, *[settings.hidden] * (settings.layers + 1), channels]))
    return [
        ("model", f"{model}, {settings.latent} numbers per image"),
        ("images", f"{colours}; {images['count'] - settings.test} learnt from, {settings.test} kept for tests"),
        ("context", f"{_CONTEXTS[model].format(refine=settings.refine)}; 10 to {settings.most} in training"),
        ("each image", f"{sizes}, omega {settings.omega:g}"),
        ("training", training),
        ("gain", "not measured yet" if gain is None else f"{gain:.2f} dB over the mean image, from 100 pixels"),
    ]


def _model(found: TensorFile) -> str:
    """By its tensors: beside the first network there may be others of the same settings."""
    return next((model for model, name in _FIRST.items() if name in found.tensors), "latent")


def _channels(found: TensorFile, model: str) -> int:
    """Of the images, by the first layer of an encoder or the last one of a SIREN."""
    if model == "latent":
        layers: int = found.description["settings"]["layers"]
        return int(found.tensors[f"siren.net.{layers + 1}.weight"].shape[0])
    wide = int(found.tensors[_FIRST[model]].shape[1])
    return wide - 2 if model == "set" else wide


def _fits(found: TensorFile) -> bool:
    """Whether it is what a training writes."""
    description = found.description
    settings, figures = Settings(**description["settings"]), description["figures"]
    gain = figures.get(PriorExperiment.merit)
    return (
        type(description["images"]["count"]) is int
        and description["images"]["count"] > settings.test
        and type(description["step"]) is int
        and isinstance(gain, float | None)
        and _channels(found, _model(found)) > 0
    )
