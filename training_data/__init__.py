"""How do we know? Corpora, readers, scorers, sweeps and analysis: where labels come from."""
