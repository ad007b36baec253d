"""fastsiren: evaluate, differentiate and train SIRENs fast."""

__version__ = "0.1.0"
