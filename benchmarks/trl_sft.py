"""Train on encoded rows with trl's SFTTrainer as shipped, in an environment that has trl; `training.py` starts it.

    python -P benchmarks/trl_sft.py MODEL_FOLDER ROWS.json

ROWS.json holds rows with `input_ids` and `labels`. Prints the seconds that one epoch took after a warm-up of one step.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer


def trained(folder: str, rows: list[dict[str, list[int]]]) -> float:
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": "cpu"}
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=1,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora,
    )
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


if __name__ == "__main__":
    rows = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    trained(sys.argv[1], rows[:8])
    print(json.dumps({"seconds": trained(sys.argv[1], rows)}))
