"""fastsiren: evaluate, differentiate and train SIRENs fast."""

from .engine.backends import precision, use_backend

__all__ = ["precision", "use_backend"]
__version__ = "0.1.0"
