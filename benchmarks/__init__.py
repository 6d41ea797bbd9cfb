"""How fast Stoa is, as ratios to named peers measured in the same run."""
