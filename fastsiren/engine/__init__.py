"""What stands between the public functions and the kernels."""
