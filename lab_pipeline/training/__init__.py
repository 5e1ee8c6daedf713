"""Tune a model by QLoRA, one phase in a process of its own: `python -m lab_pipeline.training spec.json`."""
