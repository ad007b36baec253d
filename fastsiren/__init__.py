"""fastsiren: evaluate, differentiate and train SIRENs, MLPs with sine activations, far faster than plain PyTorch.

Importing loads nothing, not even torch: every public name loads with its submodule when it is first used.
"""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import dropin, functional, grids, init, losses
    from .derivatives import derivatives, directional, explain, hessian, laplacian, value_and_jacobian
    from .dropin.conversion import convert
    from .engine.backends import precision, use_backend
    from .render import render
    from .siren import Siren

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
    "convert",
    "dropin",
]

# A checkout keeps kernels/ and bench/ beside this folder; an installed package has them inside.
_home = os.path.dirname(os.path.realpath(__file__))
_checkout = os.path.dirname(_home)
if not os.path.isdir(os.path.join(_home, "kernels")) and os.path.isdir(os.path.join(_checkout, "kernels")):
    __path__.append(_checkout)

# The submodule that defines a public name; the other public names are submodules themselves.
_DEFINED_IN = {
    "Siren": "siren",
    "value_and_jacobian": "derivatives",
    "laplacian": "derivatives",
    "hessian": "derivatives",
    "directional": "derivatives",
    "derivatives": "derivatives",
    "explain": "derivatives",
    "use_backend": "engine.backends",
    "precision": "engine.backends",
    "render": "render",
    "convert": "dropin.conversion",
}


class _Package(ModuleType):
    """Loads a public name when it is first used."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = import_module(f"{__name__}.{_DEFINED_IN.get(name, name)}")
        if name in _DEFINED_IN:
            found = getattr(found, name)
            setattr(self, name, found)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds a submodule here once it is loaded; a function of that name keeps it.
        if not (name in _DEFINED_IN and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
