"""Tokens one by one: their bytes are those of the text, to the last."""

import sentencepiece as spm
from hypothesis import given
from hypothesis import strategies as st
from m3_toys import toy_prompt
from transformers import AutoTokenizer

from serving.m3.vocabulary import Vocabulary

TOKENIZER = toy_prompt().tokenizer
WORDED = TOKENIZER.backend_tokenizer.normalizer


@given(st.text(st.characters(exclude_characters="<")))
def test_bytes_of_byte_level_tokens_are_the_texts(text: str):
    """But for the names of special tokens, such as </s>, and with the space that a first word gets."""
    vocabulary = Vocabulary(TOKENIZER)
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert b"".join(vocabulary[token][1] for token in ids) == WORDED.normalize_str(text).encode()


def test_half_a_character_is_told_as_such():
    """The text has U+FFFD, the bytes are what they are."""
    vocabulary = Vocabulary(TOKENIZER)
    told = [vocabulary[token] for token in TOKENIZER.encode("\u00e9", add_special_tokens=False)]
    assert told == [("\ufffd", b"\xc3"), ("\ufffd", b"\xa9")]


def test_special_and_unknown_tokens_have_no_bytes():
    """A special token has its name; an id beyond the tokenizer's, which a language model may have, has none."""
    vocabulary = Vocabulary(TOKENIZER)
    assert vocabulary[2] == ("</s>", b"") and vocabulary[len(TOKENIZER)] == ("", b"")


def test_bytes_of_sentencepieces_pieces(tmp_path):
    """As Llama's: the blank before a word is part of its token, and rare characters are single bytes."""
    (tmp_path / "corpus.txt").write_text("\n".join(["What color is the background? green"] * 50))
    spm.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=290, model_type="bpe",
        byte_fallback=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer("is the \u6f22 green?", add_special_tokens=False).input_ids
    told = [vocabulary[token] for token in ids]
    assert b"".join(raw for _, raw in told).decode().strip() == "is the \u6f22 green?"
    assert [raw for text, raw in told if text == "\ufffd"] == [b"\xe6", b"\xbc", b"\xa2"]
