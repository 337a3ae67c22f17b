"""A small M3 with random weights and the corpus's tokenizer, for tests of structure rather than of quality."""

import torch

from serving.m3.config import M3Config
from serving.m3.m3 import M3
from serving.m3.model import M3Model
from serving.m3.packing import PackedText, pack
from serving.m3.prompt import Prompt, train_tokenizer


def toy_config(vocab_size: int) -> M3Config:
    return M3Config(
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


def toy_prompt() -> Prompt:
    texts = ["What color is the background?", "Read the red sign.", "How much is MILK? 3.40"]
    return Prompt(train_tokenizer(texts, 300))


def toy_m3(seed: int = 0) -> M3:
    torch.manual_seed(seed)
    prompt = toy_prompt()
    model = M3Model(toy_config(len(prompt.tokenizer))).eval().requires_grad_(False)
    for weight in model.language_model.parameters():  # far enough from zero that answers differ
        weight.mul_(4.0)
    return M3(model, prompt, "toy@0")


def packed(prompt: Prompt, rows: list[list[tuple[str, str]]]) -> PackedText:
    """Each picture's questions and answers in one row."""
    return pack([[(prompt.question_ids(asked), prompt.answer_ids(answer)) for asked, answer in row] for row in rows])
