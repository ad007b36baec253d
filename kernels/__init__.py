"""Triton passes, installed as fastsiren.kernels; imports triton and torch, never fastsiren."""

if __name__ == "kernels":
    # A second copy under this name would register every kernel twice.
    raise ImportError("kernels/ is the package fastsiren.kernels: import it by that name")
