"""Prompts of whole conversations: what is asked is what was learnt, and what stands where."""

import pytest
from m3_toys import toy_prompt
from test_formats import PARTS, QWEN, tokenizer

from complexity.errors import InvalidInput
from serving.m3.export import _TEMPLATE
from serving.m3.formats import VICUNA, chat_template, plain, vicuna
from serving.m3.prompt import BOS, IMAGE, LlavaPrompt, TinyPrompt, prompt_ids
from serving.model import Reads, Turn

HISTORY = (Turn("What color is it?", "red", 1), Turn("Read the sign.", "EXIT"))
NO_SYSTEM = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}{{ message.content }}"
    "{% endfor %}"
)


def chat(template: str) -> LlavaPrompt:
    made = tokenizer(template)
    return LlavaPrompt(made, chat_template(made))


@pytest.fixture(params=["tiny", "vicuna", "plain", "qwen", "parts", "exported"])
def prompt(request):
    worded = {"vicuna": vicuna, "plain": plain}
    if request.param == "tiny":
        return toy_prompt()
    if request.param in worded:
        return LlavaPrompt(tokenizer(), worded[request.param])
    return chat({"qwen": QWEN, "parts": PARTS, "exported": _TEMPLATE}[request.param])


def text_of(prompt, ids):
    return prompt.tokenizer.decode([token for token in ids if token != IMAGE])


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_a_question_alone_is_a_conversation_of_one(prompt, pictures):
    assert prompt.asked_ids("How much?", pictures) == prompt_ids(prompt, "How much?", pictures)


def test_what_is_asked_is_what_is_learnt(prompt):
    """The ids of a conversation up to its last answer."""
    ids, _ = prompt.conversation([*HISTORY, Turn("How much?", "3.40", 1)])
    assert prompt.asked_ids("How much?", 1, history=HISTORY) + prompt.answer_ids("3.40") == ids


def test_pictures_stand_in_their_turns(prompt):
    """One in the first question, none in the second, two in the last."""
    ids = prompt.asked_ids("How much?", 2, history=HISTORY)
    first, *last = (at for at, token in enumerate(ids) if token == IMAGE)
    between = text_of(prompt, ids[first : last[0]])
    assert len(last) == 2 and "How much?" in text_of(prompt, ids[last[1] :]) and "How much?" not in between
    places = [between.index(said) for said in ("color", "red", "Read", "EXIT")]
    assert places == sorted(places)


def test_a_system_message_comes_first_and_once(prompt):
    """Before the first picture."""
    ids = prompt.asked_ids("How much?", 0, "Read it, please.", HISTORY)
    assert "Read it, please." in text_of(prompt, ids[: ids.index(IMAGE)])
    assert text_of(prompt, ids).count("Read it, please.") == 1


def test_a_system_message_replaces_vicunas_own():
    """As in the original's conversations; an exported checkpoint words it the same."""
    questions, answers = ["a", "b"], ["X"]
    assert vicuna(questions, answers, "Rhyme.") == ["Rhyme. USER: a ASSISTANT:", "USER: b ASSISTANT:"]
    exported = chat(_TEMPLATE)
    for system in ("", "Rhyme."):
        assert exported.wording(questions, answers, system) == vicuna(questions, answers, system)
    prompt = LlavaPrompt(tokenizer(), vicuna)
    ids = prompt.asked_ids("b", 0, history=[Turn("a", "X")])
    assert prompt.tokenizer.decode(ids) == f"{VICUNA} USER: a ASSISTANT:X</s>USER: b ASSISTANT:"


def test_the_tiny_format_of_a_conversation():
    """A line for the system message, then the turns."""
    prompt = toy_prompt()
    line, first, last = (prompt.question_ids(said) for said in ("Rhyme.", "red?", "So?"))
    asked = prompt.asked_ids("So?", 1, "Rhyme.", [Turn("red?", "no", 1)])
    assert asked == [BOS, *line, IMAGE, *first, *prompt.answer_ids("no"), IMAGE, *last]


def test_what_a_prompt_reads():
    """m3-tiny's a question about a picture; a LLaVA's everything that its format has a place for."""
    assert TinyPrompt.reads == Reads(history=False, system=False, pictures=1)
    for prompt in (LlavaPrompt(tokenizer(), vicuna), chat(QWEN), chat(PARTS)):
        assert prompt.reads == Reads(history=True, system=True, pictures=None)
    assert chat(NO_SYSTEM).reads == Reads(history=True, system=False, pictures=None)


@pytest.mark.parametrize(
    "said",
    [
        {"question": "<image>"},
        {"system": "an <image>"},
        {"history": [Turn("<image>?", "no")]},
        {"history": [Turn("red?", "no <image>")]},
    ],
)
def test_a_text_that_stands_for_a_picture_is_refused(prompt, said):
    with pytest.raises(InvalidInput, match="no text can contain <image>"):
        prompt.asked_ids(**{"question": "red?", "pictures": 1, **said})
