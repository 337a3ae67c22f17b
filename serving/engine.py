"""The model under many requests: what it works on next, and who shares the work. No ray, no asyncio.

A request passes three stages: its picture goes through the tower, its prompt is read, its answer is written. Each is
batched by itself. `Engine.turn` does one piece of new work, a batch of pictures or of prompts, and then writes one
token of every answer; so a long answer holds nothing up, a new prompt joins between two tokens, and a large one delays
the answers under way by one batch at most.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from PIL import Image

from serving.generator import Generator
from serving.kept import KeptPictures
from serving.m3 import Encoded, NewRow, Said, Sampling
from serving.m3.tower_features import tower_features
from serving.model import Answer, Ask, Look, ModelInfo, Piece, Pixels
from serving.spelling import Spelling

PATIENCE = 20  # times what a job needs that it may be passed by shorter ones
FRAME = 48  # tokens of a prompt around picture and question: its wording, ends of lines of tiles
FIRST_GUESS_S = 1e-4  # a prompt's token takes this long, until one has been timed


@dataclass(frozen=True)
class Limits:
    """How much is worked on together."""

    rows: int = 64  # answers under way
    table_tokens: int = 65_536  # answers under way x the longest of them: what their keys and values take
    prompt_tokens: int = 1_360  # of the prompts read together, two of 576 visual tokens: what others wait for meanwhile
    pictures: int = 4  # that the tower takes together
    memory_bytes: int = 256 * 2**20  # of pictures' visual tokens that are kept for later questions


Tell = Callable[[Piece | Answer | np.ndarray | Exception], None]


@dataclass(eq=False)
class Job:
    """One request on its way; its owner may set `gone`, and it leaves at the next turn."""

    asked: Ask | Look
    tell: Tell  # hears of pieces of the answer, and last of the answer, or what a look saw, or an error
    since_s: float
    gone: bool = False
    encoded: Encoded | None = None
    prompt_tokens: int = 0
    visual_tokens: int = 0
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    spelling: Spelling | None = None

    @property
    def visual(self) -> int:
        """Visual tokens that its prompt will hold, line ends not counted; a guess until its picture has been seen."""
        tiles = 1 if self.encoded is None else len(self.encoded.tiles)
        return self.asked.tokens * tiles if isinstance(self.asked, Ask) else 0

    @property
    def size(self) -> int:
        """Tokens of its prompt, hardly ever fewer: by this its work is ranked, and room for it is found."""
        text = len(self.asked.question.encode()) if isinstance(self.asked, Ask) else 0
        return self.visual + text + FRAME


class Engine:
    """Answers asks and looks.

    New work goes by when it is due: its arrival and `PATIENCE` times what it needs. So short jobs pass long ones that
    came a little earlier, but no job passes one that is due, and none starves, whatever arrives meanwhile.

    Args:
        clock: seconds, for tests.
    """

    def __init__(self, m3: Generator, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic):
        self._m3 = m3
        self._limits = limits or Limits()
        self._clock = clock
        self.info = ModelInfo(m3.model_id, tuple(m3.ladder), m3.image_px)
        self._inbox: SimpleQueue[Job] = SimpleQueue()
        self._unseen: list[Job] = []  # their pictures wait for the tower
        self._unread: list[Job] = []  # their prompts wait to be read
        self._rows = m3.rows()
        self._writing: set[Job] = set()
        self._kept = KeptPictures(self._limits.memory_bytes)
        self._token_s = FIRST_GUESS_S  # of reading a prompt, a running mean

    def submit(self, asked: Ask | Look, tell: Tell) -> Job:
        """Queue a request; from any thread. `tell` is called in the thread of `turn`."""
        job = Job(asked, tell, self._clock())
        self._inbox.put(job)
        return job

    def turn(self) -> bool:
        """One batch of new work, and one token of every answer under way; False when nothing is left to do."""
        self._sort_in()
        self._clear_out()
        work = self._next()
        if work is not None:
            work()
        self._write()
        return bool(self._unseen or self._unread or self._writing) or not self._inbox.empty()

    def warm_up(self) -> None:
        """Answer once at every scale, so that the first caller doesn't pay for what is set up lazily."""
        heard: list[object] = []
        for tokens in self.info.ladder:
            self.submit(Ask(Pixels(1, 1, bytes(3)), "warm-up", "?", tokens, 2), heard.append)
        while self.turn():
            pass
        for told in heard:
            if isinstance(told, Exception):
                raise told

    # What waits, and what comes next

    def _sort_in(self) -> None:
        while True:
            try:
                job = self._inbox.get_nowait()
            except Empty:
                return
            job.encoded = self._kept.get(job.asked.picture)
            self._to_next_stage(job)

    def _to_next_stage(self, job: Job) -> None:
        if job.encoded is None:
            self._unseen.append(job)
        elif isinstance(job.asked, Look):
            job.tell(tower_features(job.encoded.tiles, self.info.ladder))
        else:
            self._unread.append(job)

    def _clear_out(self) -> None:
        """Those whose callers have gone."""
        self._unseen = [job for job in self._unseen if not job.gone]
        self._unread = [job for job in self._unread if not job.gone]
        gone = {job for job in self._writing if job.gone}
        self._rows.leave(gone)
        self._writing -= gone

    def _next(self) -> Callable[[], None] | None:
        """The work that is due first, with as much other work as fits."""

        def due_s(job: Job) -> float:
            return job.since_s + PATIENCE * self._token_s * job.size

        unseen, unread = sorted(self._unseen, key=due_s), sorted(self._unread, key=due_s)
        if unseen and not (unread and self._admits(unread[0], 0) and due_s(unread[0]) < due_s(unseen[0])):
            chosen = self._one_picture_each(unseen)
            return lambda: self._see(chosen)
        if unread and self._admits(unread[0], 0):
            together = self._read_together(unread)
            return lambda: self._read(together)
        return None  # what waits would not fit beside the answers under way

    def _one_picture_each(self, jobs: Sequence[Job]) -> list[Job]:
        """The first pictures with all the questions about them."""
        pictures = list(dict.fromkeys(job.asked.picture for job in jobs))[: self._limits.pictures]
        return [job for job in jobs if job.asked.picture in pictures]

    def _read_together(self, unread: Sequence[Job]) -> list[Job]:
        """The first prompt with others of its scale, so that no padding is computed."""
        first, *others = unread
        chosen, longest = [first], first.size
        for job in others:
            if job.visual != first.visual or not self._admits(job, len(chosen)):
                continue
            longest = max(longest, job.size)
            if (len(chosen) + 1) * longest > self._limits.prompt_tokens:
                break
            chosen.append(job)
        return chosen

    def _admits(self, job: Job, beside: int) -> bool:
        """Whether an answer fits beside those under way and `beside` more; one alone always does."""
        assert isinstance(job.asked, Ask)
        rows = len(self._rows) + beside + 1
        longest = max(self._rows.longest, job.size + job.asked.max_new_tokens)
        return rows == 1 or (rows <= self._limits.rows and rows * longest <= self._limits.table_tokens)

    # The three stages

    def _see(self, jobs: list[Job]) -> None:
        """Pictures through the tower."""
        self._unseen = [job for job in self._unseen if job not in jobs]
        new = {job.asked.picture: job.asked.pixels for job in jobs}
        pictures = [Image.frombytes("RGB", (pixels.width, pixels.height), pixels.rgb) for pixels in new.values()]
        try:
            found = dict(zip(new, self._m3.encode(pictures), strict=True))
        except Exception as error:
            self._one_by_one(self._see, jobs, error)
            return
        for picture, encoded in found.items():
            self._kept.put(picture, encoded)
        for job in jobs:
            job.encoded = found[job.asked.picture]
            self._to_next_stage(job)

    def _read(self, jobs: list[Job]) -> None:
        """Prompts through the language model."""
        start_s = self._clock()
        self._unread = [job for job in self._unread if job not in jobs]
        rows = []
        for job in jobs:
            ask = job.asked
            assert isinstance(ask, Ask) and job.encoded is not None
            try:
                prepared = self._m3.prepare(ask.question, [job.encoded], ask.tokens, ask.max_new_tokens)
            except Exception as error:
                job.tell(error)
                continue
            job.prompt_tokens, job.visual_tokens = len(prepared.embeds), prepared.visual_tokens
            job.spelling = Spelling(self._m3.text, ask.stop) if ask.stop or ask.stream else None
            sampling = Sampling(ask.temperature, ask.top_p, ask.seed)
            rows.append(NewRow(job, prepared.embeds, ask.max_new_tokens, sampling))
        if not rows:
            return
        try:
            self._rows.join(rows)
        except Exception as error:
            self._one_by_one(self._read, [row.owner for row in rows], error)
            return
        self._writing |= {row.owner for row in rows}
        read = sum(len(row.embeds) for row in rows)
        self._token_s += 0.1 * ((self._clock() - start_s) / read - self._token_s)

    def _one_by_one(self, work: Callable[[list[Job]], None], jobs: list[Job], error: Exception) -> None:
        """A batch that failed is tried again a job at a time, so that each only hears of its own error."""
        if len(jobs) == 1:
            jobs[0].tell(error)
            return
        for job in jobs:
            work([job])

    def _write(self) -> None:
        """One token of every answer."""
        try:
            done: set[Any] = set()
            for said in self._rows.say():
                if said.owner not in done and self._hear(said):
                    done.add(said.owner)
            self._rows.leave(done)
            self._writing -= done
            self._rows.advance()
        except Exception as error:  # none of them can go on
            for job in self._writing:
                job.tell(error)
            self._rows, self._writing = self._m3.rows(), set()

    def _hear(self, said: Said) -> bool:
        """Note a token, and tell of it; whether the answer is complete."""
        job: Job = said.owner
        ask = job.asked
        assert isinstance(ask, Ask)
        job.ids.append(said.token)
        job.logprob += said.logprob
        ended = said.token in self._m3.stops
        full = len(job.ids) >= ask.max_new_tokens
        if job.spelling is not None:
            piece = job.spelling.add(job.ids, last=ended or full)
            if piece and ask.stream:
                job.tell(Piece(piece))
            ended = ended or job.spelling.stopped
        if ended or full:
            job.tell(self._answer(job, ended))
        return ended or full

    def _answer(self, job: Job, ended: bool) -> Answer:
        return Answer(
            text=self._m3.text(job.ids) if job.spelling is None else job.spelling.told,
            visual_tokens=job.visual_tokens,
            prompt_tokens=job.prompt_tokens,
            completion_tokens=len(job.ids),
            mean_logprob=job.logprob / len(job.ids),
            finish_reason="stop" if ended else "length",
            engine_ms=1000 * (self._clock() - job.since_s),
        )
