"""The wordings of conversations, and which of their tokens are learnt."""

import pytest
from m3_toys import toy_m3, toy_prompt
from transformers import PreTrainedTokenizerFast

from complexity.errors import CheckpointError, InvalidInput
from serving.m3.formats import VICUNA, chat_template, multiple_choice, plain, short_answer, vicuna
from serving.m3.prompt import IGNORE, IMAGE, LlavaPrompt, Turn, reword

TURNS = [Turn("<image>\nWhat color is it?", "red"), Turn("Read the sign.", "EXIT")]
QWEN = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PARTS = (
    "{% for message in messages %}{{ message.role }}:"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %} {{ part.text }}{% endif %}"
    "{% endfor %}{% if message.role == 'assistant' %}</s>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    made = toy_prompt().tokenizer
    made.chat_template = template
    return made


def told(prompt, ids, labels) -> list[str]:
    """The texts that are learnt; this tokenizer puts a space before a first word."""
    assert all(label in (IGNORE, token) for token, label in zip(ids, labels, strict=True))
    return prompt.tokenizer.decode([label for label in labels if label != IGNORE]).lstrip()


@pytest.mark.parametrize("wording", [vicuna, plain, "qwen", "parts"])
def test_a_conversation_learns_answers_and_their_ends_only(wording):
    """Every wording gives each answer, its end, and no question to learn; pictures keep their places."""
    if isinstance(wording, str):
        made = tokenizer({"qwen": QWEN, "parts": PARTS}[wording])
        prompt = LlavaPrompt(made, chat_template(made))
    else:
        prompt = LlavaPrompt(tokenizer(), wording)
    ids, labels = prompt.conversation(TURNS)
    assert told(prompt, ids, labels) == "red</s>EXIT</s>"
    assert ids.count(IMAGE) == 1
    whole = prompt.tokenizer.decode([token for token in ids if token != IMAGE])
    assert "</s></s>" not in whole and whole.index("color") < whole.index("red") < whole.index("Read")


def test_a_conversation_begins_as_a_request_does():
    """What is learnt is what is asked for later: the same ids up to the first answer."""
    for wording in (vicuna, plain):
        prompt = LlavaPrompt(tokenizer(), wording)
        ids, labels = prompt.conversation(TURNS[:1])
        asked = [*prompt.head(1), *prompt.question_ids("What color is it?")]
        assert ids == asked + prompt.answer_ids("red")
        assert labels == [IGNORE] * len(asked) + prompt.answer_ids("red")


def test_the_vicuna_format_is_llavas():
    """Later turns follow the end token of the answer before them."""
    assert vicuna(["a", "b"], ["x"]) == [f"{VICUNA} USER: a ASSISTANT:", "USER: b ASSISTANT:"]


def test_the_tiny_prompts_conversation():
    """m3-tiny's own format, turn by turn."""
    prompt = toy_m3().prompt
    ids, labels = prompt.conversation(TURNS)
    asked = [*prompt.head(1), *prompt.question_ids("What color is it?")]
    assert ids[: len(asked)] == asked and told(prompt, ids, labels) == "red</s>EXIT</s>"


def test_instructions():
    """Worded as in LLaVA's evaluation."""
    assert short_answer("Why?") == "Why?\nAnswer the question using a single word or phrase."
    asked = multiple_choice("Which?", ["cat", "dog"])
    assert asked == "Which?\nA. cat\nB. dog\nAnswer with the option's letter from the given choices directly."
    with pytest.raises(InvalidInput, match="1 options"):
        multiple_choice("Which?", ["cat"])


def test_wordings_are_chosen_by_name():
    """Only where they fit."""
    prompt = LlavaPrompt(tokenizer(), vicuna)
    reword(prompt, "plain")
    assert prompt.wording is plain
    with pytest.raises(CheckpointError, match="without a chat template"):
        reword(prompt, "chat")
    with pytest.raises(CheckpointError, match="choose one of"):
        reword(prompt, "poem")
    with pytest.raises(CheckpointError, match="only a LLaVA"):
        reword(toy_m3().prompt, "plain")
