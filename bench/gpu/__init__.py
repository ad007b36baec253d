"""One command for a machine with an NVIDIA GPU: checks, tuning and measurements."""
