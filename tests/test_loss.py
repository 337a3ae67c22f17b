"""The training loss: the mean over the scales, of answers alone, packed as apart."""

import torch
from m3_toys import packed, toy_m3
from torch.nn import functional as F

from serving.m3.loss import m3_losses
from serving.m3.packing import flat_prefix
from serving.m3.prompt import IGNORE

ROWS = [
    [("What color is the background?", "red"), ("Read the red sign.", "EXIT")],
    [("How much is MILK?", "3.40")],
    [
        ("Is there a blue star?", "yes"),
        ("How many things are there?", "12"),
        ("Which bar is highest?", "the green one"),
    ],
    [("What is the total?", "17.25"), ("What colour is the smallest object?", "orange")],
    [("Read the sign.", "PLATFORM")],
    [("Count the circles.", "3"), ("Where is the largest one?", "top left")],
]  # more pictures than are read at once, and texts of every length


def alone(m3, features, question: str, answer: str, tokens: int) -> torch.Tensor:
    """Cross-entropies of one answer's tokens, in a plain causal pass of its own."""
    ids = m3.prompt.question_ids(question) + m3.prompt.answer_ids(answer)
    prefix = flat_prefix(m3.model, features, tokens)
    embeds = torch.cat([prefix, m3.model.embed_text(torch.tensor([ids]))], 1)
    logits = m3.model.language_model(inputs_embeds=embeds).logits[0]
    said = len(m3.prompt.answer_ids(answer))
    return F.cross_entropy(logits[-said - 1 : -1], torch.tensor(ids[-said:]), reduction="none")


def at(m3, features, text, tokens: int) -> torch.Tensor:
    """The packed loss at one scale."""
    return m3_losses(m3.model, lambda _: flat_prefix(m3.model, features, tokens), text, [tokens])[0]


def test_packed_loss_equals_separate_sequences():
    """Questions packed behind one picture get the losses and gradients that they get alone, at every scale."""
    m3 = toy_m3()
    features = torch.randn(len(ROWS), 576, 32, requires_grad=True)
    text = packed(m3.prompt, ROWS)
    for tokens in m3.ladder:
        each = [alone(m3, features[i : i + 1], q, a, tokens) for i, row in enumerate(ROWS) for q, a in row]
        expected, together = torch.cat(each).mean(), at(m3, features, text, tokens)
        torch.testing.assert_close(together, expected)
        torch.testing.assert_close(*(torch.autograd.grad(loss, features)[0] for loss in (together, expected)))


def test_training_loss_is_the_mean_of_the_scales_losses():
    """M3's loss over the ladder is the mean of the five losses taken one by one, and so is its gradient."""
    m3 = toy_m3()
    text = packed(m3.prompt, ROWS)
    features = torch.randn(len(ROWS), 576, 32, requires_grad=True)
    together = m3_losses(m3.model, lambda tokens: flat_prefix(m3.model, features, tokens), text, m3.ladder).mean()
    (gradient,) = torch.autograd.grad(together, features)
    each = [at(m3, features, text, tokens) for tokens in m3.ladder]
    mean = sum(each) / len(each)
    (expected,) = torch.autograd.grad(mean, features)
    torch.testing.assert_close(together, mean)
    torch.testing.assert_close(gradient, expected)


def test_only_answers_are_learnt():
    """Labels stand where the next token belongs to an answer or its end, nowhere else."""
    m3 = toy_m3()
    text = packed(m3.prompt, ROWS)
    learnt = (text.labels != IGNORE).sum(1).tolist()
    assert [sum(len(m3.prompt.answer_ids(answer)) for _, answer in row) for row in ROWS] == learnt
