"""Train a network: the loop, its steps, warm start, progress and several processes."""
