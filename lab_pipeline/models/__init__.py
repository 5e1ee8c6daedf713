"""Load language models and measure them: base model, packing, likelihood, answers."""
