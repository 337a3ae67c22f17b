"""The model under many requests: what it works on next, and who shares the work. No ray, no asyncio.

A request passes three stages: its pictures go through the tower, its prompt is read, its answer is written. Each is
batched by itself. `Engine.turn` does one piece of new work, a batch of pictures or of prompts, and then writes one
token of every answer; so a long answer holds nothing up, a new prompt joins between two tokens, and a large one delays
the answers under way by one batch at most.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from PIL import Image

from complexity.errors import InvalidInput
from serving.generator import Generator
from serving.job import Job, Tell
from serving.kept import KeptPictures
from serving.m3 import NewRow, Said, Sampling
from serving.m3.tower_features import tower_features
from serving.model import Ask, Look, ModelInfo, ModelTimeout, Picture, Pixels, TokenLogprob
from serving.spelling import Spelling

PATIENCE = 20  # times what a job needs that it may be passed by shorter ones
FIRST_GUESS_S = 1e-4  # a prompt's token takes this long, until one has been timed


@dataclass(frozen=True)
class Limits:
    """How much is worked on together."""

    rows: int = 64  # answers under way
    table_tokens: int = 65_536  # answers under way x the longest of them: what their keys and values take
    prompt_tokens: int = 1_360  # of the prompts read together, two of 576 visual tokens: what others wait for meanwhile
    pictures: int = 4  # that the tower takes together
    memory_bytes: int = 256 * 2**20  # of pictures' visual tokens that are kept for later questions


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
        self.info = ModelInfo(m3.model_id, tuple(m3.ladder), m3.image_px, m3.reads, m3.aspect)
        self._inbox: SimpleQueue[Job] = SimpleQueue()
        self._unseen: list[Job] = []  # pictures of theirs wait for the tower
        self._unread: list[Job] = []  # their prompts wait to be read
        self._rows = m3.rows()
        self._writing: set[Job] = set()
        self._kept = KeptPictures(self._limits.memory_bytes)
        self._token_s = FIRST_GUESS_S  # of reading a prompt, a running mean

    @property
    def waiting(self) -> int:
        """Requests whose answers aren't being written yet; from any thread."""
        return self._inbox.qsize() + len(self._unseen) + len(self._unread)

    @property
    def running(self) -> int:
        """Answers that are being written; from any thread."""
        return len(self._writing)

    def submit(self, asked: Ask | Look, tell: Tell) -> Job:
        """Queue a request; from any thread. `tell` is called in the thread of `turn`.

        What the model doesn't read of a conversation is left out: `info.reads`.
        """
        if isinstance(asked, Ask):
            asked = self._read_of(asked)
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
            self.submit(Ask((Picture(Pixels(1, 1, bytes(3)), "warm-up"),), "?", tokens, 2), heard.append)
        while self.turn():
            pass
        for told in heard:
            if isinstance(told, Exception):
                raise told

    # What waits, and what comes next

    def _read_of(self, ask: Ask) -> Ask:
        """An ask without what the model doesn't read; all its pictures stay."""
        reads = self.info.reads
        if (reads.system or not ask.system) and (reads.history or not ask.history):
            return ask
        return replace(ask, system=ask.system if reads.system else "", history=ask.history if reads.history else ())

    def _sort_in(self) -> None:
        while True:
            try:
                job = self._inbox.get_nowait()
            except Empty:
                return
            count, most = len(job.asked.pictures), self.info.reads.pictures
            if most is not None and count > most:
                said = f"{count} pictures in the conversation; {self.info.model_id} reads at most {most}"
                job.tell(InvalidInput(said, "messages"))
                continue
            known = {picture.digest: self._kept.get(picture.digest) for picture in job.asked.pictures}
            job.seen = {digest: encoded for digest, encoded in known.items() if encoded is not None}
            self._to_next_stage(job)

    def _to_next_stage(self, job: Job) -> None:
        if job.unseen:
            self._unseen.append(job)
        elif isinstance(job.asked, Look):
            job.tell(tower_features(job.encoded[0].tiles, self.info.ladder))
        else:
            self._unread.append(job)

    def _clear_out(self) -> None:
        """Those whose callers have gone, and those that are too late."""
        now_s = self._clock()
        for job in [*self._unseen, *self._unread, *self._writing]:
            if job.until_s < now_s and not job.gone:
                assert isinstance(job.asked, Ask)
                job.tell(ModelTimeout(f"no answer within {job.asked.deadline_s:g} s"))
                job.gone = True
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
            pictures = self._first_pictures(unseen)
            return lambda: self._see(pictures)
        if unread and self._admits(unread[0], 0):
            together = self._read_together(unread)
            return lambda: self._read(together)
        return None  # what waits would not fit beside the answers under way

    def _first_pictures(self, jobs: Sequence[Job]) -> dict[str, Pixels]:
        """What the tower sees next, by digest: a picture once, however many ask about it."""
        wanted = (picture for job in jobs for picture in job.unseen)
        pictures: dict[str, Pixels] = {}
        for picture in wanted:
            pictures[picture.digest] = picture.pixels
            if len(pictures) == self._limits.pictures:
                break
        return pictures

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

    def _see(self, pictures: dict[str, Pixels]) -> None:
        """Pictures through the tower, for all whom they concern."""
        start_s = self._clock()
        try:
            images = [Image.frombytes("RGB", (each.width, each.height), each.rgb) for each in pictures.values()]
            found = dict(zip(pictures, self._m3.encode(images), strict=True))
        except Exception as error:
            self._not_seen(pictures, error)
            return
        for picture, encoded in found.items():
            self._kept.put(picture, encoded)
        end_s = self._clock()
        waited, self._unseen = self._unseen, []
        for job in waited:
            new = {picture.digest: found[picture.digest] for picture in job.unseen if picture.digest in found}
            if new:
                job.seen |= new
                job.spend("tower", start_s, end_s)
            self._to_next_stage(job)

    def _not_seen(self, pictures: dict[str, Pixels], error: Exception) -> None:
        """Pictures that failed together are tried again one by one, so that each asker only hears of its own error."""
        if len(pictures) > 1:
            for digest, pixels in pictures.items():
                self._see({digest: pixels})
            return
        for job in self._unseen:
            if any(picture.digest in pictures for picture in job.unseen):
                job.tell(error)
                job.gone = True
        self._unseen = [job for job in self._unseen if not job.gone]

    def _read(self, jobs: list[Job]) -> None:
        """Prompts through the language model."""
        start_s = self._clock()
        self._unread = [job for job in self._unread if job not in jobs]
        rows = []
        for job in jobs:
            ask = job.asked
            assert isinstance(ask, Ask)
            job.read_s = start_s
            try:
                prepared = self._m3.prepare(
                    ask.question, job.encoded, ask.tokens, ask.max_new_tokens, ask.system, ask.history
                )
            except Exception as error:
                job.tell(error)
                continue
            job.prompt_tokens, job.visual_tokens = len(prepared.embeds), prepared.visual_tokens
            job.spelling = Spelling(self._m3.text, ask.stop) if ask.stop or ask.stream else None
            sampling = Sampling(ask.temperature, ask.top_p, ask.seed)
            rows.append(NewRow(job, prepared.embeds, ask.max_new_tokens, sampling, ask.logprobs or 0))
        if not rows:
            return
        try:
            self._rows.join(rows)
        except Exception as error:
            self._read_one_by_one([row.owner for row in rows], error)
            return
        self._writing |= {row.owner for row in rows}
        read = sum(len(row.embeds) for row in rows)
        self._token_s += 0.1 * ((self._clock() - start_s) / read - self._token_s)

    def _read_one_by_one(self, jobs: list[Job], error: Exception) -> None:
        """Prompts that failed together are tried again one by one, so that each asker only hears of its own error."""
        if len(jobs) == 1:
            jobs[0].tell(error)
            return
        for job in jobs:
            self._read([job])

    def _write(self) -> None:
        """One token of every answer."""
        try:
            done: set[Any] = set()
            news = self._rows.say()
            now_s = self._clock()
            for said in news:
                if said.owner not in done and self._hear(said, now_s):
                    done.add(said.owner)
            self._rows.leave(done)
            self._writing -= done
            self._rows.advance()
        except Exception as error:  # none of them can go on
            for job in self._writing:
                job.tell(error)
            self._rows, self._writing = self._m3.rows(), set()

    def _hear(self, said: Said, now_s: float) -> bool:
        """Note a token, and tell of it; whether the answer is complete."""
        job: Job = said.owner
        ask = job.asked
        assert isinstance(ask, Ask)
        if not job.ids:
            job.spend("prefill", job.read_s, now_s)
            job.first_token_s = now_s
        job.ids.append(said.token)
        job.logprob += said.logprob
        ended = said.token in self._m3.stops
        full = len(job.ids) >= ask.max_new_tokens
        if ask.logprobs is not None and not ended:
            job.logprobs.append(self._token_logprob(said))
        if job.spelling is not None:
            piece = job.spelling.add(job.ids, last=ended or full)
            ended = ended or job.spelling.stopped
            if ask.stream:
                job.tell_piece(piece, last=ended or full)
        if ended or full:
            job.spend("decode", job.first_token_s, now_s)
            text = self._m3.text(job.ids) if job.spelling is None else job.spelling.told
            job.tell(job.answer(text, ended, now_s))
        return ended or full

    def _token_logprob(self, said: Said) -> TokenLogprob:
        named = ((*self._m3.token(token), logprob) for token, logprob in said.top)
        text, raw = self._m3.token(said.token)
        return TokenLogprob(text, said.logprob, raw, tuple((text, logprob, raw) for text, raw, logprob in named))
