"""One module per experiment, each a small library and the work behind a command."""
