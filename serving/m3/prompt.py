"""The tokenizer and the prompt: <s>, visual tokens, question, line break, answer, </s>."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = 0, 1, 2
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


class Prompt:
    """Turns questions and answers into token ids, and ids into answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Prompt":
        return cls(PreTrainedTokenizerFast.from_pretrained(folder))

    def question_ids(self, question: str) -> list[int]:
        """Ids of a question up to where its answer begins; the picture comes before them."""
        return self.tokenizer.encode(question.strip() + _BREAK, add_special_tokens=False)

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer with its end token."""
        return [*self.tokenizer.encode(answer, add_special_tokens=False), EOS]

    def text(self, ids: Sequence[int]) -> str:
        """The answer that ids spell."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
