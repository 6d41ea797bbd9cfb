"""One module per part of Stoa; each registers its cases with `benchmarks.harness.case`."""
