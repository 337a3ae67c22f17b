"""Questions and answers as token ids: how each kind of checkpoint wants to be asked."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from complexity.errors import CheckpointError, InvalidInput

PAD, BOS, EOS = 0, 1, 2
IMAGE = -200  # stands for a picture among a prompt's token ids, as in the original code
_SPECIAL = ("<pad>", "<s>", "</s>")
_BREAK = "\n"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which capitals and digits are always tokens of their own.

    Text read off a picture is capitals and digits, so it is spelled; the questions' small words are merged.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[A-Z0-9\n]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, bos, eos = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )


class Prompt(Protocol):
    """Turns questions and answers into token ids, and ids into answers."""

    tokenizer: Any
    stops: frozenset[int]
    """Ids that end an answer."""

    def head(self, pictures: int = 1) -> list[int]:
        """What all questions about the same pictures begin with, `IMAGE` in each picture's place."""
        ...

    def question_ids(self, question: str, pictures: int = 1) -> list[int]:
        """The rest of the prompt, up to where the answer begins."""
        ...

    def answer_ids(self, answer: str) -> list[int]:
        """An answer with its end."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The answer that ids spell."""
        ...


def prompt_ids(prompt: Prompt, question: str, pictures: int) -> list[int]:
    """A whole prompt, `IMAGE` in each picture's place, up to where the answer begins."""
    return [*prompt.head(pictures), *prompt.question_ids(question, pictures)]


class TinyPrompt:
    """m3-tiny's: <s>, visual tokens, question, line break, answer, </s>."""

    stops = frozenset({EOS})

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> "TinyPrompt":
        return cls(PreTrainedTokenizerFast.from_pretrained(folder))

    def head(self, pictures: int = 1) -> list[int]:
        return [BOS, *[IMAGE] * pictures]

    def question_ids(self, question: str, pictures: int = 1) -> list[int]:
        return self.tokenizer.encode(question.strip() + _BREAK, add_special_tokens=False)

    def answer_ids(self, answer: str) -> list[int]:
        return [*self.tokenizer.encode(answer, add_special_tokens=False), EOS]

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


PLACE = "<image>"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def vicuna(turn: str) -> str:
    """The format that LLaVA-1.5, LLaVA-NeXT and M3 were tuned on (their `vicuna_v1`)."""
    return f"{VICUNA} USER: {turn} ASSISTANT:"


def plain(turn: str) -> str:
    """No format at all."""
    return turn


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a checkpoint's folder, if it holds one."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return None
    return AutoTokenizer.from_pretrained(folder)


def chat_template(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """The format that comes with a tokenizer; templates for pictures want them apart from the text, others don't."""

    def wrap(turn: str) -> str:
        text = turn.replace(f"{PLACE}\n", "")
        parts: Any = [{"type": "image"}] * turn.count(PLACE) + [{"type": "text", "text": text}]
        for content in (parts, turn):
            turns = [{"role": "user", "content": content}]
            said = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
            if said.count(PLACE) == turn.count(PLACE) and text in said:
                return said
        raise CheckpointError("the tokenizer's chat template leaves out the question or the pictures")

    return wrap


class LlavaPrompt:
    """A LLaVA checkpoint's: the text between pictures is tokenized piece by piece, as in the original code.

    A tokenizer that has a token for pictures gets the whole text instead, as in transformers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, wrap: Callable[[str], str] = vicuna):
        self.tokenizer = tokenizer
        self.wrap = wrap
        self.stops = frozenset({int(tokenizer.eos_token_id)})

    def head(self, pictures: int = 1) -> list[int]:
        ids = self._ids("", pictures)
        return ids[: len(ids) - ids[::-1].index(IMAGE)] if pictures else []

    def question_ids(self, question: str, pictures: int = 1) -> list[int]:
        return self._ids(question, pictures)[len(self.head(pictures)) :]

    def answer_ids(self, answer: str) -> list[int]:
        return [*self.tokenizer(answer, add_special_tokens=False).input_ids, int(self.tokenizer.eos_token_id)]

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _ids(self, question: str, pictures: int) -> list[int]:
        if PLACE in question:
            raise InvalidInput(f"a question can't contain {PLACE}, which stands for a picture", "question")
        text = self.wrap(f"{PLACE}\n" * pictures + question)
        begun = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        place = self.tokenizer.get_vocab().get(PLACE)
        if place is not None:
            ids = self.tokenizer(text, add_special_tokens=not begun).input_ids
            return [IMAGE if token == place else token for token in ids]
        first, *others = text.split(PLACE)
        ids = list(self.tokenizer(first, add_special_tokens=not begun).input_ids)
        for piece in others:
            ids += [IMAGE, *self.tokenizer(piece, add_special_tokens=False).input_ids]
        return ids
