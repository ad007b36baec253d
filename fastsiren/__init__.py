"""fastsiren: evaluate, differentiate and train SIRENs, MLPs with sine activations, far faster than plain PyTorch.

Importing needs torch alone and touches no device. Applications (render, fit, problems, ...) load when first used.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import functional, init, losses
from .derivatives import derivatives, directional, explain, hessian, laplacian, value_and_jacobian
from .engine.backends import precision, use_backend
from .siren import Siren

if TYPE_CHECKING:
    from . import grids
    from .render import render

__version__ = "0.1.0"

__all__ = [
    "Siren",
    "functional",
    "init",
    "losses",
    "value_and_jacobian",
    "laplacian",
    "hessian",
    "directional",
    "derivatives",
    "explain",
    "use_backend",
    "precision",
    "render",
    "grids",
]

# A checkout keeps kernels/ and bench/ beside this folder; an installed package has them inside.
_home = Path(__file__).resolve().parent
if not (_home / "kernels").is_dir() and (_home.parent / "kernels").is_dir():
    __path__.append(str(_home.parent))


class _Package(ModuleType):
    """Loads applications when first used."""

    @property
    def render(self) -> Callable[..., Any]:
        """Evaluate a network on a whole grid."""
        return import_module("fastsiren.render").render

    @render.setter
    def render(self, module: ModuleType) -> None:
        # The import system binds the package of that name here once it is loaded; the function keeps the name.
        pass

    def __getattr__(self, name: str) -> Any:
        if name == "grids":
            return import_module("fastsiren.grids")
        raise AttributeError(f"module 'fastsiren' has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), "grids", "render"})


sys.modules[__name__].__class__ = _Package
