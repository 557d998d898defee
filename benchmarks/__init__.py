"""Speed and sample efficiency, against peers and against the machine's limit; README.md holds the figures."""
