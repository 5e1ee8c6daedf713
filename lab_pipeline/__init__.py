"""LAB (Large-Scale Alignment for ChatBots) as a Dagster pipeline: from a taxonomy to a promoted model."""

__version__ = "0.1.0"
