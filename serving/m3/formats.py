"""How a conversation is worded for a checkpoint, and the instructions that the original's evaluation adds."""

from collections.abc import Sequence
from typing import Any, Protocol

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from complexity.errors import CheckpointError, InvalidInput

PLACE = "<image>"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class Format(Protocol):
    """How conversations are worded."""

    def __call__(self, questions: Sequence[str], answers: Sequence[str], system: str = "") -> list[str]:
        """Q questions and the answers to those before the last -> Q texts, each from the answer before to its own.

        Args:
            system: a message that comes first; in the place of the format's own, if it has one.
        """
        ...


def vicuna(questions: Sequence[str], answers: Sequence[str], system: str = "") -> list[str]:
    """What LLaVA-1.5, LLaVA-NeXT and M3 were tuned on (their `vicuna_v1`)."""
    turns = [f"USER: {question} ASSISTANT:" for question in questions]
    return [f"{system or VICUNA} {turns[0]}", *turns[1:]]


def plain(questions: Sequence[str], answers: Sequence[str], system: str = "") -> list[str]:
    """The bare texts, each answer on a line of its own: for models that were never tuned to chat."""
    first, *others = [f"{question}\n" for question in questions]
    return [f"{system}\n{first}" if system else first, *others]


def chat_template(tokenizer: PreTrainedTokenizerBase) -> Format:
    """The format that comes with a tokenizer; templates for pictures want them apart from the text, others don't."""

    def word(questions: Sequence[str], answers: Sequence[str], system: str = "") -> list[str]:
        for apart in (True, False):
            texts = [_applied(tokenizer, questions[: k + 1], answers[:k], system, apart) for k in range(len(questions))]
            held = all(_holds(text, question) for text, question in zip(texts, questions, strict=True))
            if held and system.strip() in texts[0]:
                return _between(texts, answers, str(tokenizer.eos_token))
        raise CheckpointError("the tokenizer's chat template leaves out the question, the pictures or what comes first")

    return word


def takes_system(wording: Format) -> bool:
    """Whether conversations can begin with a system message; some templates have no place for one."""
    try:
        wording(["?"], [], "Be brief.")
    except (TemplateError, CheckpointError):
        return False
    return True


def _applied(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], answers: Sequence[str], system: str, apart: bool
) -> str:
    turns: list[dict[str, Any]] = []
    if system:
        turns.append({"role": "system", "content": [{"type": "text", "text": system}] if apart else system})
    for k, question in enumerate(questions):
        pictures: list[dict[str, str]] = [{"type": "image"}] * question.count(PLACE)
        parts = [*pictures, {"type": "text", "text": _words(question)}]
        turns.append({"role": "user", "content": parts if apart else question})
        if k < len(answers):
            said = [{"type": "text", "text": answers[k]}]
            turns.append({"role": "assistant", "content": said if apart else answers[k]})
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def _words(question: str) -> str:
    return question.replace(f"{PLACE}\n", "").replace(PLACE, "").strip()


def _holds(text: str, question: str) -> bool:
    return _words(question) in text and text.count(PLACE) >= question.count(PLACE)


def _between(texts: Sequence[str], answers: Sequence[str], end: str) -> list[str]:
    """What each text adds behind the one before it and that one's answer with its end."""
    pieces = [texts[0]]
    for before, answer, text in zip(texts, answers, texts[1:], strict=False):
        whole = before + answer
        at = len(whole) if text.startswith(whole) else text.find(answer, len(before)) + len(answer)
        pieces.append(text[at:].lstrip().removeprefix(end))
    return pieces


FORMATS: dict[str, Format] = {"vicuna": vicuna, "plain": plain}


def short_answer(question: str) -> str:
    """A question with the instruction under which LLaVA's and M3's short answers are measured."""
    return f"{question}\nAnswer the question using a single word or phrase."


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """A question with lettered options and the instruction to name a letter.

    Raises:
        InvalidInput: fewer than two options, or more than there are letters.
    """
    if not 2 <= len(options) <= 26:
        raise InvalidInput(f"{len(options)} options to choose from; there can be 2 to 26", "options")
    lettered = "".join(f"\n{chr(ord('A') + k)}. {option}" for k, option in enumerate(options))
    return f"{question}{lettered}\nAnswer with the option's letter from the given choices directly."
