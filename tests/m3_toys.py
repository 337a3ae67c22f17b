"""A small M3 with random weights and the corpus's tokenizer, for tests of structure rather than of quality."""

import torch

from serving.m3.m3 import M3
from serving.m3.model import Encoded
from serving.m3.packing import PackedText, pack
from serving.m3.prompt import Prompt, TinyPrompt, train_tokenizer
from serving.m3.tiny import TinyConfig, build_tiny


def toy_config(vocab_size: int) -> TinyConfig:
    return TinyConfig(
        model_id="toy",
        grid=24,
        image_side_px=192,
        tower_widths=(8, 16, 16, 16),
        language_model=dict(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        ),
    )


def toy_prompt() -> TinyPrompt:
    texts = ["What color is the background?", "Read the red sign.", "How much is MILK? 3.40"]
    return TinyPrompt(train_tokenizer(texts, 300))


def toy_m3(seed: int = 0) -> M3:
    torch.manual_seed(seed)
    prompt = toy_prompt()
    model = build_tiny(toy_config(len(prompt.tokenizer))).eval().requires_grad_(False)
    for weight in model.language_model.parameters():  # far enough from zero that answers differ
        weight.mul_(4.0)
    return M3(model, prompt, "toy@0")


def packed(prompt: Prompt, rows: list[list[tuple[str, str]]]) -> PackedText:
    """Each picture's questions and answers in one row."""
    return pack([[(prompt.question_ids(asked), prompt.answer_ids(answer)) for asked, answer in row] for row in rows])


def toy_pictures(count: int) -> list[Encoded]:
    """Pictures of one tile with made-up visual tokens."""
    return [Encoded(torch.randn(1, 576, 32)) for _ in range(count)]
