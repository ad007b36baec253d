"""The experiment "prior": a space of images, so that a few pixels of an unseen one are enough to draw the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..faults import InputError, UsageError
from ..files import atomic_output
from ..fit import Shuffle, operators, option
from ..fit import settings as base
from ..fit.sampler import generator
from ..grids import Grid
from .experiment import Experiment, Solution, Source, solve
from .pictures import curves, save
from .prior_data import Given, augmented, fingerprint, loaded
from .prior_networks import (
    Context,
    ConvEncoder,
    HyperPrior,
    Inferred,
    LatentPrior,
    PlainPrior,
    Prior,
    SetEncoder,
    values_at,
)
from .prior_pictures import between, table

__all__ = ["PriorExperiment", "Settings", "fit"]

MODELS = ("latent", "set", "conv")
# As many pixels of each test image are known, at random; then the upper half; then all.
_COUNTS = (10, 100, 1000)
# Fewest pixels of a training context, as in the official code.
_LEAST = 10
# Streams of random numbers of one step.
_AUGMENT, _CONTEXT, _TEST = 1, 2, 3
# Test images at a time.
_TOGETHER = 100


@dataclass(frozen=True)
class Settings(base.Settings):
    """How a space of images is learnt.

    The paper's networks: hidden 256, layers 3, latent 256, hyper 256, channels 256, lr 5e-5, batch 100,
    weight_penalty 100, on 200,000 faces.
    """

    model: str = option(
        "latent",
        "latents by gradient steps, or a hypernetwork behind an encoder of a set of pixels or of a sparse image",
        choices=MODELS,
        fixed=True,
    )
    steps: int = option(1500, "training steps", least=1)
    hidden: int = option(64, "width of the sine layers", least=1, fixed=True)
    omega: float = option(20.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")
    batch: int = option(16, "images per step", least=1)
    latent: int = option(128, "numbers that stand for an image", least=1, fixed=True)
    hyper: int = option(64, "hidden units of each network of a hypernetwork", least=1, fixed=True)
    channels: int = option(16, "channels of the encoder of sparse images", least=2, fixed=True)
    inner: int = option(3, "gradient steps to a latent in training", least=1)
    refine: int = option(20, "gradient steps to a latent in tests", least=1)
    inner_lr: float = option(0.1, "size of these steps to begin with", fixed=True)
    most: int = option(199, "most known pixels of a training image", least=1)
    latent_penalty: float = option(0.1, "weight of the mean square of predicted latents", least=0)
    weight_penalty: float = option(1.0, "weight of the mean square of predicted weights", least=0)
    augment: float = option(1.0, "strength of random mirroring, moves and lighting of training images", least=0)
    side: int = option(32, "pixels along each side of the images", least=8, fixed=True)
    test: int = option(20, "images that are kept for tests", least=1, fixed=True)


class PriorExperiment(Experiment):
    """Images of a kind from a few of their pixels (Sitzmann et al. 2020, section 4.4; Dupont et al. 2022, functa).

    Args:
        settings: How the space is learnt.
        given: A directory of pictures, uint8 [N, H, W] or [N, H, W, C], or None for the faces of scikit-image.
    """

    name = "prior"
    data = "set of images"
    merit = "gain"
    ours = Settings.model
    labels = MODELS
    options = Settings
    quick = Settings(steps=250, hidden=32, layers=2, latent=64, batch=8, refine=5)
    bound = 3.3
    published = "CelebA, MSE from 10/100/1000 pixels: set .035/.013/.009, conv .033/.009/.008 (Sitzmann et al. 2020)"
    sources = (Source("images", "directory of pictures (default: 100 faces of scikit-image)"),)
    clip = 1.0
    measured = 8

    def __init__(self, settings: Settings, given: Given = None) -> None:
        super().__init__(settings)
        s = self.settings
        if s.latent % s.channels:
            raise UsageError(f"--channels {s.channels} does not divide --latent {s.latent}; choose a divisor")
        self.pixels = loaded(given, s.side)  # [N, S, S, C]
        if len(self.pixels) < s.test + 2:
            raise InputError(
                f"{len(self.pixels)} images are too few: --test {s.test} of them are kept and 2 at least are learnt "
                "from; give more, or a smaller --test"
            )
        if bool((self.pixels == self.pixels[0]).all()):
            raise InputError(f"the {len(self.pixels)} images are all the same: there is nothing to learn; give others")
        order = torch.randperm(len(self.pixels), generator=generator(s.seed, 0))
        self.kept, self.learnt = order[: s.test], order[s.test :]
        self.x = Grid.over((s.side, s.side)).coordinates().flatten(0, 1)  # [P, 2]
        self.sampler = Shuffle(len(self.learnt), s.batch, seed=s.seed)
        self.truth = self._images(self.kept).flatten(1, 2)  # [T, P, C]
        parts = [self.pixels[index].long().sum(0) for index in self.learnt.split(1000)]
        self.average = (torch.stack(parts).sum(0) / len(self.learnt) / 127.5 - 1).flatten(0, 1)  # [P, C]
        self.contexts = self._contexts()

    def _images(self, index: Tensor) -> Tensor:  # [B] -> [B, S, S, C]
        """Samples in [-1, 1]."""
        return self.pixels[index].float() / 127.5 - 1

    def _contexts(self) -> dict[str, Context]:
        """What is known of the test images in each test; as many random pixels as they have more of."""
        count, points = len(self.kept), len(self.x)
        source = generator(self.settings.seed, 0, _TEST)
        orders = torch.rand(count, points, generator=source).argsort(-1)
        known = {str(n): orders[:, :n] for n in _COUNTS if n < points}
        whole = torch.arange(points).expand(count, -1)
        known |= {"half": whole[:, : points // 2], "full": whole}
        return {name: self.observed(self.truth, index) for name, index in known.items()}

    def observed(self, values: Tensor, index: Tensor) -> Context:
        """What is known of images when these pixels of them are.

        Args:
            values: Their samples in [-1, 1], [B, P, C], P pixels along rows.
            index: Known pixels of each, [B, M].
        """
        kept = values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        return Context(index, self.x[index], kept)

    @property
    def features(self) -> tuple[int, int]:
        """Row and column to channels."""
        return 2, self.pixels.shape[3]

    def network(self) -> Prior:
        """The prior that the settings ask for."""
        return self.made(self.settings.model)

    def made(self, model: str, activation: str = "sine") -> Prior:
        """A prior with initial weights.

        Args:
            model: One of `MODELS`.
            activation: "sine", or "relu" for comparison.
        """
        s, (_, channels) = self.settings, self.features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            names = ("latent", "hidden", "layers", "omega")
            sizes = {**{name: getattr(s, name) for name in names}, "channels": channels}
            if model == "latent":
                return LatentPrior(**sizes, inner=s.inner, refine=s.refine, rate=s.inner_lr, activation=activation)
            encoder: nn.Module = SetEncoder(channels, s.latent)
            if model == "conv":
                encoder = ConvEncoder(channels, s.side, s.channels, s.latent)
            return HyperPrior(encoder, **sizes, width=s.hyper, activation=activation)

    @classmethod
    def label(cls, settings: base.Settings) -> str:
        """The model that is asked for."""
        return cast(Settings, settings).model

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """The model that is asked for, the other ones, and the first with ReLU in place of sines."""
        first = self.settings.model
        order = [first, *(model for model in MODELS if model != first)]
        return {**{model: partial(self.made, model) for model in order}, "relu": partial(self.made, first, "relu")}

    def plain(self, net: nn.Module) -> nn.Module | None:
        """The same parameters without the fused engine."""
        return PlainPrior(net) if isinstance(net, Prior) else None

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Mean squared error of whole images from a part of their pixels, and the penalties of a hypernetwork."""
        s = self.settings
        images = augmented(self._images(self.learnt[self.sampler(step)]), s.augment, generator(s.seed, step, _AUGMENT))
        values = images.flatten(1, 2)
        found: Inferred = net(self.observed(values, self._known(len(values), step)))
        loss: Tensor = operators(found.net).value_mse(found.net, self.x, values)
        if not found.predicted:
            return loss
        squares = sum(each.square().sum() for each in found.predicted) / sum(each.numel() for each in found.predicted)
        return loss + s.latent_penalty * found.latent.square().mean() + s.weight_penalty * squares

    def _known(self, count: int, step: int) -> Tensor:  # [B, M]
        """Pixels of a step: their number is anything between the least and the most, on a logarithmic scale."""
        source = generator(self.settings.seed, step, _CONTEXT)
        most = min(self.settings.most, len(self.x))
        least = min(_LEAST, most)
        number = round(least * (most / least) ** float(torch.rand((), generator=source)))
        return torch.rand(count, len(self.x), generator=source).argsort(-1)[:, :number]

    def identity(self) -> dict[str, Any]:
        """Number and fingerprint of the images."""
        return {"images": {"count": len(self.pixels), "sha256": fingerprint(self.pixels)}}

    @torch.no_grad()
    def inferred(self, net: nn.Module, context: Context) -> Inferred:
        """Networks and latents of images, without gradients."""
        net.eval()
        found: Inferred = net(context)
        net.train()
        return found

    @torch.no_grad()
    def reconstructed(self, net: nn.Module, context: Context) -> Tensor:  # [B, P, C]
        """Whole images from what is known of them; samples in [-1, 1]."""
        parts = (Context(*part) for part in zip(*(each.split(_TOGETHER) for each in context), strict=True))
        return torch.cat([values_at(self.inferred(net, part).net, self.x) for part in parts]).clamp(-1, 1)

    def measure(self, net: nn.Module) -> dict[str, float]:
        """Gain of PSNR over the mean image in dB, from 100 pixels; error of test images for each context."""
        errors = {f"MSE {name}": self.error(self.reconstructed(net, each)) for name, each in self.contexts.items()}
        reference = self.error(self.average)
        judged = errors.get("MSE 100", errors["MSE half"])
        gain = 10 * math.log10(reference / judged) if judged > 0 else math.inf
        return {"gain": gain if math.isfinite(judged) else -math.inf, **errors}

    def error(self, found: Tensor) -> float:
        """Mean squared error of the test images, samples in [0, 1]."""
        return float(((found - self.truth) / 2).double().square().mean())

    def references(self) -> dict[str, dict[str, float]]:
        """Errors of the mean image, and of giving every pixel the value of the nearest known one."""
        nearest, places = {}, torch.arange(len(self.kept))[:, None]
        for name, context in self.contexts.items():
            closest = torch.stack([torch.cdist(self.x, each).argmin(-1) for each in context.x])
            nearest[f"MSE {name}"] = self.error(context.values[places, closest])
        mean = self.error(self.average)
        return {"mean image": dict.fromkeys(nearest, mean), "nearest pixel": nearest}

    def write(self, solution: Solution, home: Path) -> None:
        """Contexts, reconstructions and truth; a way between two faces; errors as a table; gain over the steps."""
        save(table(self, solution.net), home / "reconstructions.png")
        save(between(self, cast(Prior, solution.net)), home / "between.png")
        save(curves(solution.over_steps("gain"), x="step", y="gain over the mean image in dB"), home / "gain.png")
        rows = {label: each.figures for label, each in solution.trained.items()} | self.references()
        names = [f"MSE {name}" for name in self.contexts]
        lines = [f"{'':<14}" + "".join(f"{name[4:]:>9}" for name in names)]
        lines += [f"{label:<14}" + "".join(f"{row[name]:9.4f}" for name in names) for label, row in rows.items()]
        with atomic_output(home / "errors.txt") as file:
            file.write("\n".join([*lines, ""]).encode())


def fit(given: Given = None, **options: Any) -> Solution:
    """Learn a space of images.

    Args:
        given: A directory of pictures, uint8 [N, H, W] or [N, H, W, C], or None for the faces of scikit-image.
        **options: Those of `solve`, and fields of `Settings`.

    Raises:
        InputError: There are no pictures, too few, damaged ones, or grey and coloured ones.
    """
    return solve(PriorExperiment, given, **options)
