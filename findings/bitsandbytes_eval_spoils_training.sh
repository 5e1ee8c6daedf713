#!/usr/bin/env bash
# On CPUs with AVX512-BF16, bitsandbytes 0.50.2 repacks NF4 weights at the first forward pass in eval mode without gradients.
# The kernel for repacked weights has no backward pass, so no gradient flows back through the layer in later training: adapters
# below it learn from what passes by on residual connections only. torch warns once, bitsandbytes does not.
# `support_avx512bf16_for_cpu = False` on each Linear4bit, before any forward pass, cures it.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "this CPU has no AVX512-BF16: nothing to see"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet bitsandbytes==0.50.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import bitsandbytes as bnb
import torch


def gradient_error(evaluate_first: bool, repacking: bool) -> float:
    """Relative error of the input's gradient through one NF4 layer, against the dequantized weights; 1 if there is none."""
    torch.manual_seed(0)
    weight = torch.randn(256, 256) / 16
    layer = bnb.nn.Linear4bit(256, 256, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    layer = layer.to("cpu")
    dequantized = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    if not repacking:
        layer.support_avx512bf16_for_cpu = False
    inputs = torch.randn(8, 256, dtype=torch.bfloat16)
    if evaluate_first:
        layer.eval()
        with torch.no_grad():
            layer(inputs)
    layer.train()
    inputs.requires_grad_(True)
    layer(inputs).float().sum().backward()
    expected = torch.ones(8, 256) @ dequantized
    if inputs.grad is None:
        return 1.0
    return float((inputs.grad.float() - expected).norm() / expected.norm())


print("bitsandbytes", bnb.__version__, "torch", torch.__version__)
plain, after_eval, cured = gradient_error(False, True), gradient_error(True, True), gradient_error(True, False)
print(f"relative error of gradients: trained at once {plain:.3f}, after an eval pass {after_eval:.3f}, repacking off {cured:.3f}")
assert plain < 0.02 and cured < 0.02 and after_eval == 1.0, "behaviour changed"
PYTHON
