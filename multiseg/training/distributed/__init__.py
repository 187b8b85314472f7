"""Train one network in several processes."""
