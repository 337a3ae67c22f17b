"""Which granularity does a sample get? Policy, price, artifact, decision cache, and their training."""
