"""The engine: who shares the work, who goes first, and that everybody gets the answer that they would get alone."""

from typing import Any

import numpy as np
import pytest
from doubles import LADDER, FakeM3
from hypothesis import given, settings
from hypothesis import strategies as st
from m3_toys import toy_m3

from complexity.errors import InvalidInput
from serving.engine import Engine, Job, Limits
from serving.m3 import Encoded, load
from serving.m3.tower_features import tower_features
from serving.model import Answer, Ask, Look, ModelTimeout, Picture, Piece, Pixels, Reads, Turn
from training_data.drawn.corpus import draw_item


def ask(name: str = "a", tokens: int = 1, question: str = "What?", most: int = 8, **more: Any) -> Ask:
    shade = ord(name[0])
    return Ask((Picture(Pixels(2, 1, bytes([shade] * 6)), name),), question, tokens, most, **more)


class Clock:
    """Goes on by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """An engine over a fake model, with what it told of each request."""

    def __init__(self, limits: Limits | None = None, m3: Any = None):
        self.m3 = m3 or FakeM3()
        self.clock = Clock()
        self.engine = Engine(self.m3, limits, self.clock)
        self.told: dict[Job, list[Any]] = {}

    def submit(self, asked: Ask | Look) -> Job:
        heard: list[Any] = []
        job = self.engine.submit(asked, heard.append)
        self.told[job] = heard
        return job

    def run(self) -> None:
        while self.engine.turn():
            self.clock.now_s += 0.01

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.engine.turn()
            self.clock.now_s += 0.01

    def done(self, job: Job) -> bool:
        return bool(self.told[job]) and not isinstance(self.told[job][-1], Piece)

    def answers(self, *asks: Ask) -> list[Any]:
        jobs = [self.submit(each) for each in asks]
        self.run()
        return [self.told[job][-1] for job in jobs]


def test_a_picture_is_encoded_once_for_all_its_scales_and_questions():
    """Together and later; each ask still gets its own picture's answer at its own scale."""
    bench = Bench()
    first = bench.answers(ask("a"), ask("b", 9), ask("a", 576, "And?"))
    again = bench.answers(ask("b", 36), ask("a"))
    assert sum(bench.m3.encoded) == 2
    assert [answer.visual_tokens for answer in first + again] == [1, 9, 576, 36, 1]
    assert first[1].text == again[0].text == "98,98,98 What?" and first[2].text == "97,97,97 And?"


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    """Two pictures' worth of memory holds the two used last; a picture that is too large is answered all the same."""
    bench = Bench(Limits(memory_bytes=2 * max(LADDER) * 3 * 4))
    for name, total in [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)]:
        bench.answers(ask(name))
        assert sum(bench.m3.encoded) == total, name
    tiny = Bench(Limits(memory_bytes=1))
    assert [answer.text for answer in tiny.answers(ask("a"), ask("b"))] == ["97,97,97 What?", "98,98,98 What?"]


def test_a_look_is_what_the_tower_sees_and_spares_the_answer_the_tower():
    """The numbers are those that sweeps store, and the picture's visual tokens wait for its question."""
    m3 = toy_m3()
    bench = Bench(m3=m3)
    picture = draw_item("test", 0, 0, 1).picture.image
    pixels = Pixels(*picture.size, picture.tobytes())
    (seen,) = bench.answers(Look(pixels, "digest"))
    (encoded,) = m3.encode([picture])
    np.testing.assert_allclose(seen, tower_features(encoded.tiles, m3.ladder), rtol=1e-4, atol=1e-5)
    (again,) = bench.answers(Look(pixels, "digest"))
    np.testing.assert_array_equal(seen, again)
    assert bench.answers(Ask((Picture(pixels, "digest"),), "What is it?", 9, 2))[0].visual_tokens == 9


def test_a_kept_picture_holds_its_own_memory_and_not_its_batchs():
    """Tokens of a batch are views of one tensor; what is kept is as large as it is counted."""
    bench = Bench(m3=toy_m3())
    pictures = [draw_item("test", 0, index, 1).picture.image for index in range(3)]
    bench.answers(*(Look(Pixels(*each.size, each.tobytes()), str(i)) for i, each in enumerate(pictures)))
    for i in range(3):
        tiles = bench.engine._kept.get(str(i)).tiles
        assert tiles.untyped_storage().nbytes() == tiles.nbytes


def test_prompts_of_one_scale_are_read_together_up_to_the_limit():
    """Four of 9 tokens fit into a batch of 240 with what is counted for the text; scales don't mix."""
    bench = Bench(Limits(prompt_tokens=240))
    bench.answers(*(ask("a", tokens, str(i)) for i, tokens in enumerate([9] * 6 + [144, 144])))
    assert sorted(map(sorted, bench.m3.read)) == [[9, 9], [9, 9, 9, 9], [144], [144]]


def test_a_short_answer_passes_a_long_one_that_came_before():
    """It joins between two tokens of the long one, and is told while that goes on."""
    bench = Bench()
    long = bench.submit(ask("a", 576, "word " * 100, most=200))
    bench.turns(5)
    short = bench.submit(ask("a", 1, "short"))
    bench.turns(4)
    assert bench.done(short) and not bench.done(long)
    bench.run()
    assert len(bench.told[long][-1].text.split()) == 101


@pytest.mark.parametrize(("common", "rare"), [(1, 576), (576, 1)])
def test_nobody_starves(common: int, rare: int):
    """A rare scale is answered in the end, though the common one never stops coming and fills every place."""
    bench = Bench(Limits(rows=4, prompt_tokens=640))
    job = None
    for turn in range(1500):
        for _ in range(3 if common == 1 else 1):
            bench.submit(ask("a", common, f"word word {turn}"))
        if turn == 20:
            job = bench.submit(ask("a", rare, "rare"))
        bench.turns(1)
        if job is not None and bench.done(job):
            return
    pytest.fail("starved")


def test_a_caller_that_has_gone_costs_nothing_more():
    """Whether its picture waited, its prompt waited, or its answer was half written."""
    bench = Bench(Limits(pictures=1))
    written, unread = bench.submit(ask("a", 1, "word " * 50, most=60)), None
    bench.turns(4)
    unread = bench.submit(ask("a", 9))
    unseen = bench.submit(ask("b", 9))
    for job in (written, unread, unseen):
        job.gone = True
    bench.run()
    assert len(bench.engine._rows) == 0 and bench.m3.read == [[1]] and bench.m3.encoded == [1]
    assert not any(bench.told[job] for job in (written, unread, unseen))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LADDER), st.integers(1, 40)), min_size=1, max_size=20))
def test_answers_under_way_stay_within_their_memory(asked: list[tuple[int, int]]):
    """Rows times the longest stay below the limit at every turn, unless one alone is larger; all are answered."""
    bench = Bench(Limits(rows=6, table_tokens=1500))
    jobs = [bench.submit(ask("a", tokens, "word " * 30, most)) for tokens, most in asked]
    busy = True
    while busy:
        busy = bench.engine.turn()
        bench.clock.now_s += 0.01
        rows = len(bench.engine._rows)
        assert rows <= 1 or (rows <= 6 and rows * bench.engine._rows.longest <= 1500)
    for job, (_, most) in zip(jobs, asked, strict=True):
        assert len(bench.told[job][-1].text.split()) == min(31, most)


def test_room_is_found_for_long_questions_and_for_tiles():
    """A row never takes more than it was admitted for, by the question's length and the picture's tiles."""
    m3 = toy_m3()
    bench = Bench(m3=m3)
    picture = draw_item("test", 0, 0, 1).picture.image
    (encoded,) = m3.encode([picture])
    for question in ("What?", "word " * 60):
        job = bench.submit(ask("a", 9, question))
        job.seen = {"a": encoded}
        assert len(m3.prepare(question, [encoded], 9, 8).embeds) <= job.size
        job.seen = {"a": Encoded(encoded.tiles.expand(5, -1, -1))}
        assert job.visual == 5 * 9


def test_each_hears_of_its_own_error_only():
    """A prompt that is refused, and one that breaks the batch it is read in."""
    bench = Bench()
    fine, refused, broken, also = bench.answers(
        ask("a", 9, "fine"), ask("a", 9, "refuse"), ask("a", 9, "break"), ask("a", 9, "also")
    )
    assert (fine.text, also.text) == ("97,97,97 fine", "97,97,97 also")
    assert isinstance(refused, InvalidInput) and isinstance(broken, RuntimeError)


def test_an_engine_whose_writing_broke_goes_on():
    """Those under way hear of it; the next one is answered."""
    bench = Bench()
    crashed, beside = bench.answers(ask("a", 9, "crash"), ask("a", 9, "one two three"))
    assert isinstance(crashed, RuntimeError) and isinstance(beside, RuntimeError)
    assert bench.answers(ask("a", 9, "fine"))[0].text == "97,97,97 fine"


def test_pieces_add_up_to_the_answer():
    """The first comes before the second is written; the last thing told is the whole answer."""
    bench = Bench()
    job = bench.submit(ask("a", 1, "one two three", stream=True))
    bench.turns(2)
    assert [type(told) for told in bench.told[job]] == [Piece]
    bench.run()
    *pieces, answer = bench.told[job]
    assert "".join(piece.text for piece in pieces) == answer.text == "97,97,97 one two three"
    assert isinstance(answer, Answer) and len(pieces) > 2


def test_a_stop_text_ends_the_answer_and_is_not_told():
    bench = Bench()
    job = bench.submit(ask("a", 1, "one two three four", stop=("two three",), stream=True))
    bench.run()
    *pieces, answer = bench.told[job]
    assert "".join(piece.text for piece in pieces) == answer.text == "97,97,97 one "
    assert answer.finish_reason == "stop" and answer.completion_tokens == 4


def test_an_answer_cut_short_says_so():
    (answer,) = Bench().answers(ask("a", 1, "one two three", most=2))
    assert (answer.text, answer.finish_reason, answer.completion_tokens) == ("97,97,97 one", "length", 2)


def test_a_warm_engine_has_answered_at_every_scale():
    m3 = FakeM3()
    Engine(m3).warm_up()
    assert sorted(sum(m3.read, [])) == list(LADDER)


def shown(*names: str) -> tuple[Picture, ...]:
    return tuple(Picture(Pixels(2, 1, bytes([ord(name)] * 6)), name) for name in names)


def talk(*names: str, **more: Any) -> Ask:
    return Ask(shown(*names), "What?", 9, 20, **more)


def test_all_pictures_of_an_ask_are_seen_once_and_in_order():
    """Those that are known, or come twice, cost nothing; all count as visual tokens."""
    bench = Bench()
    (first,) = bench.answers(talk("b", "a", "b"))
    (second,) = bench.answers(talk("a", "c"))
    assert first.text == "98,98,98 97,97,97 98,98,98 What?" and second.text == "97,97,97 99,99,99 What?"
    assert (first.visual_tokens, second.visual_tokens) == (27, 18) and bench.m3.encoded == [2, 1]


def test_pictures_of_different_asks_go_through_the_tower_together():
    """An ask waits until its last picture has been seen."""
    bench = Bench(Limits(pictures=2))
    answers = bench.answers(talk("a"), talk("b", "c", "a"), talk("d"))
    assert bench.m3.encoded == [2, 2]
    assert [answer.visual_tokens for answer in answers] == [9, 27, 9]


def test_a_picture_that_is_none_fails_those_who_ask_about_it():
    bench = Bench()
    broken = Picture(Pixels(2, 1, b""), "broken")
    fine, failed, also = bench.answers(talk("a"), Ask((broken,), "What?", 9, 8), Ask((*shown("a"), broken), "?", 9, 8))
    assert fine.text == "97,97,97 What?" and isinstance(failed, ValueError) and isinstance(also, ValueError)
    assert bench.answers(talk("b"))[0].text == "98,98,98 What?"


def test_a_conversation_reaches_the_model():
    """System message, earlier turns, question."""
    history = (Turn("Who?", "Ann", 1), Turn("Why?", "So"))
    (answer,) = Bench().answers(talk("a", "b", system="Be brief.", history=history))
    assert answer.text == "97,97,97 98,98,98 Be brief. Who? Ann Why? So What?"


def test_what_the_model_does_not_read_is_left_out_but_for_pictures():
    """`info` says so; the picture of an earlier turn stays, and more pictures than it reads are refused."""
    bench = Bench(m3=FakeM3(reads=Reads(history=False, system=False, pictures=1)))
    assert bench.engine.info.reads == Reads(history=False, system=False, pictures=1)
    history = (Turn("Who?", "Ann", 1),)
    answer, refused = bench.answers(talk("a", system="Be brief.", history=history), talk("a", "b", history=history))
    assert answer.text == "97,97,97 What?" and answer.prompt_tokens == 9 + 1
    assert str(refused) == "2 pictures in the conversation; fake-m3 reads at most 1" and refused.param == "messages"
    assert bench.m3.encoded == [1]


def test_room_is_found_for_conversations():
    """A prompt of several pictures, turns and a system message is no longer than it was counted."""
    m3 = toy_m3()
    history = tuple(Turn("How much is MILK?", "3.40", pictures) for pictures in (1, 0, 1))
    asked = talk("a", "b", "c", system="Be brief.", history=history)
    job = Bench().submit(asked)
    encoded = m3.encode([draw_item("test", 0, index, 1).picture.image for index in range(3)])
    job.seen = dict(zip("abc", encoded, strict=True))
    prepared = m3.prepare(asked.question, job.encoded, 9, 8, asked.system, asked.history)
    assert prepared.visual_tokens == job.visual == 27 and len(prepared.embeds) <= job.size


def test_log_probabilities_are_told_of_every_token_but_the_last():
    """As many alternatives as are asked for, none unless; an ask without the wish gets none."""
    bench = Bench()
    plain, zero, two = bench.answers(ask("a", 1, "one"), ask("a", 1, "one", logprobs=0), ask("a", 1, "one", logprobs=2))
    assert plain.logprobs is None
    assert [(each.token, each.logprob, each.raw, each.top) for each in zero.logprobs] == [
        (" 97,97,97", -0.25, b" 97,97,97", ()),
        (" one", -0.25, b" one", ()),
    ]
    assert two.logprobs[1].top == ((" one", -0.25, b" one"), ("</s>", -2.0, b""))
    assert two.completion_tokens == 3 and two.mean_logprob == -0.25


@pytest.mark.parametrize(
    ("stop", "most", "tokens"),
    [
        ((), 8, ["97,97,97", "one", "two", "three"]),
        ((), 2, ["97,97,97", "one"]),
        (("two",), 8, ["97,97,97", "one", "two"]),
        ((" two",), 8, ["97,97,97", "one"]),
    ],
)
def test_the_log_probabilities_of_pieces_add_up(stop: tuple[str, ...], most: int, tokens: list[str]):
    """To the answer's, whether it ends by itself, at its limit, or at a stop text within a token or before one."""
    bench = Bench()
    job = bench.submit(ask("a", 1, "one two three", most, stream=True, stop=stop, logprobs=1))
    bench.run()
    *pieces, answer = bench.told[job]
    assert [each.token.strip() for each in answer.logprobs] == tokens
    assert tuple(each for piece in pieces for each in piece.logprobs) == answer.logprobs
    assert "".join(piece.text for piece in pieces) == answer.text


def test_real_tokens_spell_the_answer():
    """Bytes of m3-tiny's tokens, greedy and by chance, whole and streamed; their probabilities make the mean."""
    m3 = load()
    picture = draw_item("test", 0, 0, 1).picture.image
    seen = (Picture(Pixels(*picture.size, picture.tobytes()), "a"),)
    asks = [
        Ask(seen, "What color is the background?", 36, 12, temperature=wild, logprobs=3, seed=1, stream=stream)
        for wild in (0.0, 1.5)
        for stream in (False, True)
    ]
    for answer in Bench(m3=m3).answers(*asks):
        assert b"".join(each.raw for each in answer.logprobs).decode(errors="replace").strip() == answer.text
        assert all(len(each.top) == 3 for each in answer.logprobs)
        total, count = sum(each.logprob for each in answer.logprobs), len(answer.logprobs)
        assert count == answer.completion_tokens - (answer.finish_reason == "stop")
        assert answer.mean_logprob * answer.completion_tokens <= total + 1e-4


def test_intervals_tell_where_the_time_went():
    """From arrival to the last token without gaps; a picture that is known spends none in the tower."""
    bench = Bench()
    seen, known = (bench.answers(ask("a", 1, "one two"))[0] for _ in range(2))
    assert [name for name, _, _ in seen.intervals] == ["tower", "queue", "prefill", "decode"]
    assert [name for name, _, _ in known.intervals] == ["prefill", "decode"]
    for answer in (seen, known):
        ends = [end_s for _, _, end_s in answer.intervals]
        assert [start_s for _, start_s, _ in answer.intervals] == [0.0, *ends[:-1]]
        assert ends[-1] == pytest.approx(answer.engine_ms / 1000)
        assert answer.intervals[-1][1] == pytest.approx(answer.first_token_ms / 1000)
    assert seen.first_token_ms == pytest.approx(10) and known.first_token_ms == 0


def test_what_waits_and_what_runs_is_counted():
    bench = Bench(Limits(rows=1))
    assert (bench.engine.waiting, bench.engine.running) == (0, 0)
    for _ in range(3):
        bench.submit(ask("a", 1, "one two three"))
    assert (bench.engine.waiting, bench.engine.running) == (3, 0)
    bench.turns(2)
    assert (bench.engine.waiting, bench.engine.running) == (2, 1)
    bench.run()
    assert (bench.engine.waiting, bench.engine.running) == (0, 0)


def test_what_is_too_late_is_told_so_and_leaves():
    """Half written, or still waiting; those beside it go on."""
    bench = Bench(Limits(rows=2, pictures=1))
    written = bench.submit(ask("a", 1, "word " * 50, most=60, deadline_s=0.055))
    beside = bench.submit(ask("a", 1, "word " * 20, most=60, deadline_s=10.0))
    unread = bench.submit(ask("a", 576, deadline_s=0.035))
    bench.turns(5)
    assert bench.engine.running == 2 and [str(told) for told in bench.told[unread]] == ["no answer within 0.035 s"]
    bench.turns(2)
    assert isinstance(bench.told[written][-1], ModelTimeout) and bench.engine.running == 1
    bench.run()
    assert len(bench.told[beside][-1].text.split()) == 21
    assert len(bench.told[written]) == len(bench.told[unread]) == 1
