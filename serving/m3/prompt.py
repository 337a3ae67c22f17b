"""Questions and answers as token ids: how each kind of checkpoint wants to be asked."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from complexity.errors import CheckpointError, InvalidInput
from serving.m3.formats import FORMATS, PLACE, Format, chat_template, takes_system, vicuna
from serving.m3.vocabulary import Vocabulary
from serving.model import Reads, Turn

PAD, BOS, EOS = 0, 1, 2
IMAGE = -200  # stands for a picture among a prompt's token ids, as in the original code
IGNORE = -100  # among labels: not part of an answer
_SPECIAL = ("<pad>", "<s>", "</s>")
_BREAK = "\n"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 640) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which digits, and capitals that begin no word, are always tokens of their own.

    Text read off a picture is capitals and digits, so it is spelled; the questions' words are merged. A text that
    begins with a word gets a space before it, so that a word is the same token wherever it stands.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(" "), normalizers.Replace(Regex("^ (?![A-Z]?[a-z])"), "")]
    )
    spelled = pre_tokenizers.Split(Regex("[A-Z](?![a-z])|[0-9\n]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spelled, pre_tokenizers.ByteLevel(add_prefix_space=False)])
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

    @property
    def reads(self) -> Reads:
        """What `asked_ids` should be given of a conversation: of the rest the model makes nothing, or worse."""
        ...

    def head(self, pictures: int = 1) -> list[int]:
        """What all questions about the same pictures begin with, `IMAGE` in each picture's place."""
        ...

    def question_ids(self, question: str, pictures: int = 1) -> list[int]:
        """The rest of the prompt, up to where the answer begins."""
        ...

    def asked_ids(self, question: str, pictures: int, system: str = "", history: Sequence[Turn] = ()) -> list[int]:
        """A question that ends a conversation: the whole prompt, `IMAGE` in each picture's place.

        Args:
            pictures: that stand before the question itself.

        Raises:
            InvalidInput: a text has `<image>` in it where that stands for a picture.
        """
        ...

    def answer_ids(self, answer: str) -> list[int]:
        """An answer with its end."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The answer that ids spell."""
        ...

    def token(self, token: int) -> tuple[str, bytes]:
        """A token's text, with U+FFFD for characters that aren't complete, and its bytes; none for a special token."""
        ...

    def conversation(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        """A conversation to learn from: its ids, `IMAGE` for each picture, and its labels, IGNORE but for answers.

        Pictures stand before a turn's question, or where it has `<image>`.
        """
        ...


def prompt_ids(prompt: Prompt, question: str, pictures: int) -> list[int]:
    """A whole prompt, `IMAGE` in each picture's place, up to where the answer begins."""
    return [*prompt.head(pictures), *prompt.question_ids(question, pictures)]


class TinyPrompt:
    """m3-tiny's: <s>, visual tokens, question, line break, answer, </s>; a system message is a line after the <s>.

    It has learnt from one picture and one question at a time. On 600 pairs of the test split at 144 tokens, an
    earlier turn before the question costs 11 points of accuracy, another picture 15; on 600 others a system message of
    300 characters costs 7.5, while one of a line costs at most 1.2.
    """

    stops = frozenset({EOS})
    reads = Reads(history=False, system=False, pictures=1)

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self._vocabulary = Vocabulary(tokenizer)

    @classmethod
    def load(cls, folder: Path) -> "TinyPrompt":
        return cls(PreTrainedTokenizerFast.from_pretrained(folder))

    def head(self, pictures: int = 1) -> list[int]:
        return [BOS, *[IMAGE] * pictures]

    def question_ids(self, question: str, pictures: int = 1) -> list[int]:
        return self.tokenizer.encode(question.strip() + _BREAK, add_special_tokens=False)

    def asked_ids(self, question: str, pictures: int, system: str = "", history: Sequence[Turn] = ()) -> list[int]:
        _check_texts(question, system, history)
        ids = [BOS, *(self.question_ids(system) if system else [])]
        for turn in history:
            ids += [IMAGE] * turn.pictures + self.question_ids(turn.question) + self.answer_ids(turn.answer)
        return ids + [IMAGE] * pictures + self.question_ids(question)

    def answer_ids(self, answer: str) -> list[int]:
        return [*self.tokenizer.encode(answer, add_special_tokens=False), EOS]

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def token(self, token: int) -> tuple[str, bytes]:
        return self._vocabulary[token]

    def conversation(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        ids, labels = _spoken(
            (
                [IMAGE] * (turn.pictures + turn.question.count(PLACE))
                + self.question_ids(turn.question.replace(PLACE, "")),
                self.answer_ids(turn.answer),
            )
            for turn in turns
        )
        return [BOS, *ids], [IGNORE, *labels]


def load_tokenizer(folder: Path, config: PreTrainedConfig | None = None) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a checkpoint's folder, if it holds one.

    Args:
        config: of the language model, where transformers doesn't know the folder's own.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return None
    return AutoTokenizer.from_pretrained(folder, config=config)


class LlavaPrompt:
    """A LLaVA checkpoint's: the text between pictures is tokenized piece by piece, as in the original code.

    A tokenizer that has a token for pictures gets the whole text instead, as in transformers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, wording: Format = vicuna):
        self.tokenizer = tokenizer
        self.wording = wording
        self.stops = frozenset({int(tokenizer.eos_token_id)})
        self._vocabulary = Vocabulary(tokenizer)

    @property
    def reads(self) -> Reads:
        return Reads(history=True, system=takes_system(self.wording))

    def head(self, pictures: int = 1) -> list[int]:
        ids = self.asked_ids("", pictures)
        return ids[: len(ids) - ids[::-1].index(IMAGE)] if pictures else []

    def question_ids(self, question: str, pictures: int = 1) -> list[int]:
        return self.asked_ids(question, pictures)[len(self.head(pictures)) :]

    def asked_ids(self, question: str, pictures: int, system: str = "", history: Sequence[Turn] = ()) -> list[int]:
        _check_texts(question, system, history)
        *before, last = self._asked([*history, Turn(question, "", pictures)], system)
        ids, _ = _spoken(zip(before, [self.answer_ids(turn.answer) for turn in history], strict=True))
        return ids + last

    def answer_ids(self, answer: str) -> list[int]:
        return [*self.tokenizer(answer, add_special_tokens=False).input_ids, int(self.tokenizer.eos_token_id)]

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def token(self, token: int) -> tuple[str, bytes]:
        return self._vocabulary[token]

    def conversation(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        return _spoken(zip(self._asked(turns), [self.answer_ids(turn.answer) for turn in turns], strict=True))

    def _asked(self, turns: Sequence[Turn], system: str = "") -> list[list[int]]:
        """The ids of each turn's question, with what stands around it."""
        questions = [f"{PLACE}\n" * turn.pictures + turn.question for turn in turns]
        texts = self.wording(questions, [turn.answer for turn in turns[:-1]], system)
        return [self._pieces(text, first=k == 0) for k, text in enumerate(texts)]

    def _pieces(self, text: str, first: bool) -> list[int]:
        """The ids of a text, `IMAGE` for each picture; what a tokenizer puts in front comes before the first only."""
        begun = not first or bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        place = self.tokenizer.get_vocab().get(PLACE)
        if place is not None:
            ids = self.tokenizer(text, add_special_tokens=not begun).input_ids
            return [IMAGE if token == place else token for token in ids]
        start, *others = text.split(PLACE)
        ids = list(self.tokenizer(start, add_special_tokens=not begun).input_ids)
        for piece in others:
            ids += [IMAGE, *self.tokenizer(piece, add_special_tokens=False).input_ids]
        return ids


def _check_texts(question: str, system: str, history: Sequence[Turn]) -> None:
    """Refuse a text that would be taken for a picture."""
    if any(PLACE in text for text in (question, system, *(said for t in history for said in (t.question, t.answer)))):
        raise InvalidInput(f"no text can contain {PLACE}, which stands for a picture", "messages")


def _spoken(turns: Iterable[tuple[list[int], list[int]]]) -> tuple[list[int], list[int]]:
    """Ids of a conversation and its labels, from the ids of each question and answer."""
    ids: list[int] = []
    labels: list[int] = []
    for asked, told in turns:
        ids += asked + told
        labels += [IGNORE] * len(asked) + told
    return ids, labels


WORDINGS = (*FORMATS, "chat")


def reword(prompt: Prompt | None, wording: str) -> None:
    """Have a LLaVA's prompt worded otherwise than its checkpoint says.

    Raises:
        CheckpointError: there is no such wording, or it doesn't fit the model.
    """
    if wording not in WORDINGS:
        raise CheckpointError(f"there is no wording {wording!r}; choose one of {', '.join(WORDINGS)}")
    if not isinstance(prompt, LlavaPrompt):
        raise CheckpointError(f"only a LLaVA with a tokenizer can be asked in another wording, such as {wording!r}")
    if wording == "chat" and not prompt.tokenizer.chat_template:
        raise CheckpointError("the model's tokenizer comes without a chat template")
    prompt.wording = chat_template(prompt.tokenizer) if wording == "chat" else FORMATS[wording]
