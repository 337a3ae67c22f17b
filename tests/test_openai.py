"""Reading a request: what is accepted, and what is refused by name, with which status, code and field."""

import base64
import io
import json

import pytest
from doubles import LADDER, chat_body, data_url, png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from router.policy import Wish
from serving.failures import Refused, failure_of
from serving.intake import MAX_SIDE, MESSAGE_PIXELS, Intake, pictures_of, read_request
from serving.model import ModelInfo, Pixels, Reads, Turn
from serving.settings import Settings

SETTINGS = Settings()
INFO = ModelInfo("fake-m3", LADDER, 192)


def read(body: object, settings: Settings = SETTINGS) -> Intake:
    return read_request(body if isinstance(body, bytes) else json.dumps(body).encode(), INFO, settings)


def pixels(image: bytes) -> Pixels:
    """A picture as the model gets it."""
    intake = read(chat_body(image=image))
    (picture,) = pictures_of(intake.samples(), intake.conversation.images)
    return picture.pixels


def refusal(body: object, settings: Settings = SETTINGS) -> Refused:
    with pytest.raises(Refused) as caught:
        read(body, settings)
    return caught.value


def with_messages(*messages: object) -> dict[str, object]:
    return {"model": "m3-auto", "messages": list(messages)}


def with_parts(*parts: object) -> dict[str, object]:
    return with_messages({"role": "user", "content": list(parts)})


TEXT = {"type": "text", "text": "What is it?"}
PICTURE = {"type": "image_url", "image_url": {"url": data_url(png())}}


def test_a_question_and_a_picture_are_read():
    intake = read(chat_body("What colour is it?", png(), "m3-36"))
    (sample,) = intake.samples()
    assert (intake.tokens, sample.question, sample.image) == (36, "What colour is it?", png())
    assert intake.max_new_tokens == SETTINGS.default_answer_tokens


def test_the_automatic_model_leaves_the_scale_open():
    intake = read(chat_body(model="m3-auto"))
    assert (intake.tokens, intake.wish) == (None, Wish())


def test_text_parts_are_joined_in_order_around_the_picture():
    intake = read(with_parts({"type": "text", "text": " What colour "}, PICTURE, {"type": "text", "text": "is it?"}))
    assert intake.question == "What colour is it?"


@pytest.mark.parametrize(
    "harmless",
    [
        {"temperature": 0},
        {"temperature": 0.0},
        {"temperature": None},
        {"top_p": 0.5},
        {"seed": 7},
        {"user": "someone"},
        {"n": 1},
        {"stream": False},
        {"logprobs": False},
        {"metadata": {"team": "a"}},
        {"store": False},
        {"service_tier": "auto"},
        {"m3": {"cache": None}},
        {"presence_penalty": 0},
        {"stop": None},
        {"tools": None},
        {"response_format": {"type": "text"}},
    ],
)
def test_a_field_that_changes_nothing_is_accepted(harmless):
    assert read(chat_body() | harmless) == read(chat_body())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("n", 9),
        ("temperature", 2.5),
        ("seed", 1.5),
        ("top_p", 0),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"5": 1}),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", ""),
        ("logprobs", 1),
        ("top_logprobs", 3),
        ("top_logprobs", 21),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "auto"),
        ("functions", []),
        ("response_format", {"type": "json_object"}),
        ("max_tokens", 0),
        ("max_completion_tokens", "many"),
        ("best_of", 3),
        ("audio", {}),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(field, value):
    error = refusal(chat_body() | {field: value})
    assert error.status == 400
    assert (error.param or "").split(".")[0] == field
    assert field in str(error)


def test_a_refusal_says_why():
    assert "penalties aren't supported" in str(refusal(chat_body() | {"presence_penalty": 1}))
    assert "for streamed answers" in str(refusal(chat_body() | {"stream_options": {}}))


def test_how_an_answer_is_chosen_is_read():
    """A seed of its own for each request that names none; stops come alone or as a list."""
    intake = read(chat_body() | {"temperature": 0.7, "top_p": 0.9, "seed": 5, "stop": "end", "stream": True})
    assert (intake.temperature, intake.top_p, intake.seed) == (0.7, 0.9, 5)
    assert (intake.stop, intake.stream, intake.include_usage) == (("end",), True, False)
    assert read(chat_body() | {"temperature": 1}).seed != read(chat_body() | {"temperature": 1}).seed
    usage = {"stream": True, "stream_options": {"include_usage": True}, "stop": ["a", "b"]}
    assert read(chat_body() | usage).include_usage and read(chat_body() | usage).stop == ("a", "b")


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o",
        "m3-100",
        "m3-",
        "m3",
        "",
        "m3-0576",
        "M3-auto",
        "m3-1 ",
        "x" * 1000,
        "m3-auto-",
        "m3-auto-1",
        "m3-auto-1.5",
        "m3-auto--0.1",
        "m3-auto-1e-3",
        "m3-auto-0.1 ",
        "m3-auto-nan",
    ],
)
def test_an_unknown_model_is_not_found_and_the_models_are_listed(name):
    error = refusal(chat_body(model=name))
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "m3-auto, m3-1, m3-9, m3-36, m3-144, m3-576, or m3-auto-LOSS" in str(error)
    assert len(str(error)) < 250


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (with_parts(PICTURE), "empty_question", "messages.0.content"),
        (with_parts({"type": "text", "text": " \n "}, PICTURE), "empty_question", "messages.0.content"),
        (with_parts(TEXT), "image_required", "messages.0.content"),
        (with_parts(TEXT, *[PICTURE] * 9), "too_many_images", "messages.0.content.9.image_url.url"),
        (chat_body("x" * 1001), "question_too_long", "messages.0.content"),
        ({"messages": []}, "missing_required_parameter", "model"),
        ({"model": "m3-auto"}, "missing_required_parameter", "messages"),
        (with_messages(), "invalid_value", "messages"),
        (with_messages(*[{"role": "user", "content": "Hi?"}] * 65), "invalid_value", "messages"),
        (with_messages({"role": "user", "content": "Hi?"}), "image_required", "messages.0.content"),
        (with_messages({"role": "system", "content": "Be brief."}), "invalid_value", "messages.0.role"),
        (with_messages({"role": "tool", "content": "Hi"}), "invalid_value", "messages.0"),
        (with_messages({"role": "user", "content": []}), "invalid_value", "messages.0.content"),
        (with_messages({"role": "assistant", "content": "Hi"}, {"role": "user", "content": [TEXT, PICTURE]}),
         "invalid_value", "messages.0.role"),
        (with_messages({"role": "user", "content": [TEXT, PICTURE]}, {"role": "assistant", "content": "Hi"}),
         "invalid_value", "messages.1.role"),
        (with_messages({"role": "user", "content": [TEXT, PICTURE]}, {"role": "system", "content": "Hi"}),
         "invalid_value", "messages.1.role"),
        (with_messages({"role": "system", "content": [TEXT, PICTURE]}, {"role": "user", "content": [TEXT, PICTURE]}),
         "invalid_value", "messages.0.content.1.type"),
        (with_parts({"type": "input_audio"}), "invalid_value", "messages.0.content.0"),
        (with_parts(TEXT, {"type": "image_url", "image_url": {"url": "x", "detail": "ultra"}}), "invalid_value",
         "messages.0.content.1.image_url.detail"),
        (b"{", "invalid_json", None),
        (b"", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (b"[]", "invalid_value", None),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused_at_its_field(body, code, param):
    error = refusal(body)
    assert (error.status, error.code, error.param) == (400, code, param)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/a.png?token=secret", "invalid_image_url"),
        ("http://127.0.0.1/a.png", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("data:image/png,plain", "invalid_image_url"),
        ("data:;base64,AAAA", "invalid_image_url"),
        (base64.b64encode(png()).decode(), "invalid_image_url"),
        ("", "invalid_image_url"),
        ("data:image/png;base64,AAA", "invalid_base64"),
        ("data:image/png;base64,secret picture", "invalid_base64"),
        ("data:image/png;base64,secré", "invalid_base64"),
    ],
)
def test_a_picture_must_be_a_base64_data_url_and_is_never_echoed(url, code):
    error = refusal(with_parts(TEXT, {"type": "image_url", "image_url": {"url": url}}))
    assert (error.status, error.code, error.param) == (400, code, "messages.0.content.1.image_url.url")
    assert "secr" not in str(error)


@pytest.mark.parametrize("image", [b"", b"not a picture", png()[:40], b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_bytes_that_are_no_picture_are_refused_when_decoded(image):
    with pytest.raises(Refused) as caught:
        pixels(image)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")
    assert caught.value.param == "messages.0.content.1.image_url.url"


def test_pixels_arrive_as_they_were():
    small = pixels(png(5, 3, "#102030"))
    assert (small.width, small.height) == (5, 3)
    assert small.rgb == bytes.fromhex("102030") * 15


def test_a_large_picture_is_shrunk_to_what_the_model_needs():
    """Of 192 needed pixels no more than twice as many arrive on the shorter side, and never more than MAX_SIDE."""
    large = pixels(png(2000, 1000))
    assert (large.width, large.height) == (400, 200)
    strip = pixels(png(3000, 200))
    assert (strip.width, strip.height) == (MAX_SIDE, 51)


def test_a_message_to_the_model_stays_under_the_cap_of_a_grpc_message():
    assert MAX_SIDE * MAX_SIDE <= MESSAGE_PIXELS and MESSAGE_PIXELS * 3 < 4 * 2**20
    body = with_parts(TEXT, *[{"type": "image_url", "image_url": {"url": data_url(png(700, 700))}}] * 8)
    intake = read_request(json.dumps(body).encode(), ModelInfo("fake-m3", LADDER, 700), SETTINGS)
    sent = pictures_of(intake.samples(), intake.conversation.images)
    assert 3_000_000 < sum(len(picture.pixels.rgb) for picture in sent) < 4 * 2**20


def test_either_name_of_the_answer_limit_is_honoured():
    assert read(chat_body() | {"max_tokens": 5}).max_new_tokens == 5
    assert read(chat_body() | {"max_completion_tokens": 6}).max_new_tokens == 6
    assert read(chat_body() | {"max_tokens": 7, "max_completion_tokens": 7}).max_new_tokens == 7


def test_answer_limits_that_contradict_or_exceed_are_refused():
    assert refusal(chat_body() | {"max_tokens": 5, "max_completion_tokens": 6}).param == "max_tokens"
    assert "at most 256" in str(refusal(chat_body() | {"max_tokens": 257}))


def test_a_refusal_of_a_body_shows_none_of_it():
    secret = data_url(png())
    for body in (
        {"model": secret},
        {"model": "m3-auto", "messages": secret},
        with_parts({"type": secret}),
        with_parts({"type": "image_url", "image_url": secret}),
        {"model": "m3-auto", "messages": [{"role": secret, "content": "Hi?"}]},
        chat_body() | {"stream": secret},
        {secret: 1},
    ):
        error = refusal(body)
        assert secret[60:] not in failure_of(error).response().body.decode()


@given(st.binary(max_size=200))
def test_any_bytes_are_either_read_or_refused(body):
    with pytest.raises(Refused):
        read(body)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda child: st.lists(
    child, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "url", "image_url", "role", "x"]), child),
    max_leaves=8))  # fmt: skip
def test_any_content_is_either_read_or_refused(content):
    body = {"model": "m3-auto", "messages": [{"role": "user", "content": content}]}
    with pytest.raises(Refused):
        read(body)


def test_every_format_of_a_picture_is_decoded():
    for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        data = io.BytesIO()
        Image.new("RGB", (6, 4), "white").save(data, name)
        assert pixels(data.getvalue()).rgb == b"\xff" * 72


def turn(role: str, *parts: object) -> dict[str, object]:
    return {"role": role, "content": list(parts)}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def picture(colour: str, detail: str | None = None) -> dict[str, object]:
    more = {} if detail is None else {"detail": detail}
    return {"type": "image_url", "image_url": {"url": data_url(png(colour=colour)), **more}}


CONVERSATION = (
    turn("system", text("Be brief.")),
    turn("user", text("What is it?"), picture("red")),
    turn("assistant", text("A square.")),
    turn("user", picture("blue"), picture("green"), text("And"), text("these?")),
    {"role": "assistant", "content": "Squares.", "refusal": None, "tool_calls": None, "annotations": []},
    turn("user", text("Which is")),
    turn("user", text("red?")),
)


def test_a_conversation_is_read_turn_by_turn():
    """Messages in a row from one side are one turn; the question is about the last pictures that were shown."""
    conversation = read(with_messages(*CONVERSATION)).conversation
    assert conversation.system == "Be brief."
    assert conversation.history == (Turn("What is it?", "A square.", 1), Turn("And these?", "Squares.", 2))
    assert conversation.question == "Which is red?"
    assert [image.data for image in conversation.images] == [png(colour=each) for each in ("red", "blue", "green")]
    assert conversation.asked == 2


def test_what_a_model_does_not_read_is_left_out_but_for_the_pictures_that_are_asked_about():
    info = ModelInfo("fake-m3", LADDER, 192, Reads(history=False, system=False, pictures=2))
    body = json.dumps(with_messages(*CONVERSATION)).encode()
    conversation = read_request(body, info, SETTINGS).conversation
    assert (conversation.system, conversation.history, conversation.question) == ("", (), "Which is red?")
    assert [image.data for image in conversation.images] == [png(colour="blue"), png(colour="green")]
    one = ModelInfo("fake-m3", LADDER, 192, Reads(history=False, system=False, pictures=1))
    with pytest.raises(Refused) as caught:
        read_request(body, one, SETTINGS)
    assert "the model reads at most 1" in str(caught.value)
    assert caught.value.param == "messages.3.content.1.image_url.url"


def test_a_conversation_that_is_too_long_is_refused():
    long = [turn("user", text("x" * 900), PICTURE), turn("assistant", text("y" * 900))] * 3
    error = refusal(with_messages(*long, turn("user", text("And?"))), Settings(max_conversation_chars=5000))
    assert (error.code, error.param) == ("conversation_too_long", "messages")
    assert read(with_messages(*long, turn("user", text("And?"))))


@pytest.mark.parametrize(
    ("details", "tokens", "ceiling"),
    [
        (["auto"], None, None),
        (["low"], None, 36),
        (["high"], 576, None),
        (["low", "auto"], None, None),
        (["low", "low"], None, 36),
        (["low", "high"], 576, None),
    ],
)
def test_the_detail_of_the_pictures_steers(details, tokens, ceiling):
    body = with_messages(turn("user", text("What is it?"), *(picture("red", detail) for detail in details)))
    intake = read(body)
    assert (intake.tokens, intake.wish) == (tokens, Wish(ceiling=ceiling))


@pytest.mark.parametrize(
    ("model", "detail", "wishes"),
    [
        ("m3-auto", "high", {"ceiling": 144}),
        ("m3-auto", "low", {"floor": 144}),
        ("m3-144", "high", {}),
        ("m3-144", "low", {}),
    ],
)
def test_a_detail_that_contradicts_the_rest_is_refused(model, detail, wishes):
    body = with_messages(turn("user", text("What is it?"), picture("red", detail))) | {"model": model, "m3": wishes}
    error = refusal(body)
    assert (error.code, error.param) == ("invalid_value", "messages.0.content.1.image_url.detail")
    assert read(body | {"model": "m3-9" if detail == "low" else "m3-576", "m3": {}})


def test_a_models_name_carries_the_accuracy_that_may_be_lost():
    assert read(chat_body(model="m3-auto-0.02")).wish == Wish(max_loss=0.02)
    assert read(chat_body(model="m3-auto-0")).wish == Wish(max_loss=0.0)
    assert read(chat_body(model="m3-auto-.5")).wish == Wish(max_loss=0.5)
    error = refusal(chat_body(model="m3-auto-0.02") | {"m3": {"max_loss": 0.1}})
    assert error.param == "m3.max_loss"
    assert read(chat_body(model="m3-auto-0.02") | {"m3": {"max_loss": 0.02}})


HEADERS = {
    "x-m3-floor": "9",
    "x-m3-ceiling": "144",
    "x-m3-max-loss": "0.05",
    "x-m3-cache": "no-cache, no-store",
    "x-m3-explain": "true",
}


def test_headers_wish_what_the_field_leaves_open():
    body = json.dumps(chat_body() | {"m3": {"floor": 36}}).encode()
    intake = read_request(body, INFO, SETTINGS, HEADERS)
    assert intake.wish == Wish(36, 144, 0.05, fresh=True, store=False)
    assert intake.explain
    assert read(chat_body() | {"m3": {"cache": "no-store"}}).wish == Wish(store=False)
    plain = read(chat_body())
    assert (plain.wish, plain.explain) == (Wish(), False)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-m3-floor", "many"),
        ("x-m3-floor", "10"),
        ("x-m3-ceiling", ""),
        ("x-m3-max-loss", "2"),
        ("x-m3-max-loss", "nan"),
        ("x-m3-cache", "max-age=3"),
        ("x-m3-explain", "perhaps"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header, value):
    with pytest.raises(Refused) as caught:
        read_request(json.dumps(chat_body()).encode(), INFO, SETTINGS, {header: value})
    assert caught.value.status == 400
    assert caught.value.param in (header, "m3.floor", "m3.ceiling")


def test_several_answers_and_log_probabilities_are_asked_for():
    intake = read(chat_body() | {"n": 3, "logprobs": True, "top_logprobs": 4})
    assert (intake.n, intake.logprobs) == (3, 4)
    assert read(chat_body() | {"logprobs": True}).logprobs == 0
    assert (read(chat_body()).n, read(chat_body()).logprobs) == (1, None)


def test_urls_are_read_only_where_they_may_be_fetched():
    url = "https://example.com/a.png"
    body = with_parts(TEXT, {"type": "image_url", "image_url": {"url": url}})
    intake = read(body, Settings(picture_hosts=["example.com"]))
    assert not intake.complete and intake.conversation.images[0].url == url
    assert refusal(body).code == "invalid_image_url"
    http = with_parts(TEXT, {"type": "image_url", "image_url": {"url": "http://example.com/a.png"}})
    assert refusal(http, Settings(picture_hosts=["example.com"])).code == "invalid_image_url"
