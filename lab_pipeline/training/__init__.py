"""Two-phase quantized tuning (QLoRA) in a process of its own: `python -m lab_pipeline.training spec.json`."""
