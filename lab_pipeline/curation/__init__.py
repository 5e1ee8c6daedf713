"""Keep or reject the rows of a leaf by rules, judges' scores and people's reviews."""
