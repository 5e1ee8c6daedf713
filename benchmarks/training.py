"""What do packing and answer-only logits save?

Trains a few steps of the shipped recipe's QLoRA on the general replay set, packed as the pipeline does it, and with
transformers' own Trainer on padded batches with logits for every position, in the same process.

    python -P benchmarks/training.py MODEL_FOLDER
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from lab_pipeline.config.recipe import load_recipe
from lab_pipeline.datasets.general import load_general
from lab_pipeline.datasets.rows import general_row
from lab_pipeline.models.loader import load_tokenizer
from lab_pipeline.models.packing import IGNORED, encode, flatten, pack

ROWS = 96


def main(folder: Path) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    from lab_pipeline.training.quantized import load_base, with_adapter
    from lab_pipeline.training.trainer import prepare_run

    recipe = load_recipe("smollm2_135m_cpu")
    phase = recipe.knowledge.model_copy(update={"epochs": 1})
    tokenizer = load_tokenizer(folder)
    rows = [encode(general_row(question), tokenizer) for question in load_general(None).replay[:ROWS]]
    tokens = sum(len(row.tokens) for row in rows)
    scratch = Path(tempfile.mkdtemp())

    packs = [flatten(each) for each in pack(rows, recipe.pack_tokens)]
    warm = with_adapter(load_base(folder, recipe), recipe.lora, None)  # memory touched for the first time is slow
    prepare_run(warm, packs[:2], recipe, phase, 0, scratch / "warm", lambda: False).run()
    model = with_adapter(load_base(folder, recipe), recipe.lora, None)
    run = prepare_run(model, packs, recipe, phase, 0, scratch / "packed", lambda: False)
    started = time.perf_counter()
    run.run()
    packed_s = time.perf_counter() - started

    def padded(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        pads = {"input_ids": tokenizer.pad_token_id, "labels": IGNORED, "attention_mask": 0}
        return {
            name: torch.tensor([row[name] + [pad] * (width - len(row[name])) for row in batch]) for name, pad in pads.items()
        }

    plain_rows = [{"input_ids": row.tokens, "labels": row.labels, "attention_mask": [1] * len(row.tokens)} for row in rows]
    arguments = TrainingArguments(
        output_dir=str(scratch / "padded"),
        num_train_epochs=1,
        per_device_train_batch_size=8,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    model = with_adapter(load_base(folder, recipe), recipe.lora.model_copy(update={"dtype": "float32"}), None)
    trainer = Trainer(model=model, args=arguments, train_dataset=plain_rows, data_collator=padded)
    started = time.perf_counter()
    trainer.train()
    padded_s = time.perf_counter() - started
    print(
        json.dumps(
            {
                "tokens": tokens,
                "packed_tokens_per_s": round(tokens / packed_s, 1),
                "padded_tokens_per_s": round(tokens / padded_s, 1),
                "speedup": round(padded_s / packed_s, 2),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
