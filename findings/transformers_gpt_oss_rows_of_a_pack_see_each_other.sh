#!/usr/bin/env bash
# transformers 5.24 takes rows without padding: joined into one sequence, with position ids that begin anew at each row and no
# attention mask, they are kept apart by a block-diagonal mask. gpt-oss makes its mask without the position ids, so on a CPU its
# rows attend to each other, and OPT and BLOOM too, without a word: the call is taken, and only the numbers are wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet transformers==5.24.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, GptOssConfig, LlamaConfig, OPTConfig

small = {"vocab_size": 128, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 0}
heads = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64}
configs = [
    LlamaConfig(**small, **heads),
    Gemma2Config(**small, **heads),
    GptOssConfig(**small, **heads, num_local_experts=4, num_experts_per_tok=2),
    OPTConfig(**small, word_embed_proj_dim=32, ffn_dim=64),
    BloomConfig(**small),
]


def difference(config) -> float:
    """Largest difference of a row's log-probabilities alone and after another row, without padding between them."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    ids, positions = torch.randint(1, 128, (1, 48)), torch.arange(24)[None]
    with torch.no_grad():
        alone = model(input_ids=ids[:, 24:], position_ids=positions, use_cache=False).logits[0]
        packed = model(input_ids=ids, position_ids=positions.repeat(1, 2), use_cache=False).logits[0, 24:]
    return float((alone.log_softmax(-1) - packed.log_softmax(-1)).abs().max())


print("transformers", transformers.__version__, "torch", torch.__version__)
found = {config.model_type: difference(config) for config in configs}
for name, apart in found.items():
    print(f"{name}: {apart:.6f} nats")
assert found["llama"] < 1e-4 and found["gemma2"] < 1e-4, "behaviour changed"
assert min(found["gpt_oss"], found["opt"], found["bloom"]) > 0.1, "behaviour changed"
PYTHON
