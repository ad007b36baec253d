"""Programs as users write them for existing SIREN code, and plain restatements of the classes that they use."""
