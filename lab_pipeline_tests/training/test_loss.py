from __future__ import annotations

import pytest
import torch

from lab_pipeline.training.loss import _TOKENS, summed_loss


@pytest.mark.parametrize("tokens", [1, _TOKENS, 2 * _TOKENS + 3])
def test_loss_and_gradient_are_those_of_torch(tokens):
    torch.manual_seed(1)
    logits, labels = torch.randn(tokens, 50, dtype=torch.float64).float(), torch.randint(50, (tokens,))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = summed_loss(ours, labels, 7)
    expected = torch.nn.functional.cross_entropy(theirs, labels, reduction="sum") / 7
    (3 * loss).backward()
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_probabilities_of_bf16_logits_are_computed_in_float32():
    torch.manual_seed(1)
    logits, labels = torch.randn(100, 3000, dtype=torch.bfloat16), torch.randint(3000, (100,))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = summed_loss(ours, labels, 100)
    expected = torch.nn.functional.cross_entropy(theirs.float(), labels)
    loss.backward()
    expected.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-2, atol=1e-8)


def test_no_token_has_no_loss():
    assert summed_loss(torch.zeros(0, 5, requires_grad=True), torch.zeros(0, dtype=torch.long), 1).item() == 0
