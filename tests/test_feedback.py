"""Feedback: what is acknowledged outlives crashes and full disks, and is stored once; what is broken is named."""

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import redis
from feedback_world import answered, verdict, write_journal
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_process import RedisProcess, free_port

from complexity.errors import InvalidInput, LabelTableError, OffLadder
from complexity.feedback import (
    AnsweredRecord,
    FeedbackRow,
    decimals,
    from_line,
    from_value,
    read_feedback,
    to_line,
    to_value,
)
from router.redis_client import BREAK_AFTER
from serving.failures import failure_of
from serving.feedback import FeedbackStore, Records, UnknownDecision
from serving.journal import FeedbackNotStored, IdempotencyConflict, Journal

HERE = Path(__file__).parent
PATIENT_MS = 10_000  # for tests of what Redis holds, which a loaded machine must not fail
LADDER = (1, 9, 36)
# Training in the same process has the CPU take numbers that small for 0.
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
RECORDS = st.builds(
    AnsweredRecord,
    decision_id=st.text(max_size=9),
    image_sha256=st.text(max_size=9),
    question=st.text(),
    model=st.text(max_size=9),
    ladder=st.just(LADDER),
    tokens=st.sampled_from(LADDER),
    visual_tokens=st.integers(0, 10**6),
    prediction=st.text(),
    mean_logprob=st.none() | NUMBERS,
    generated_tokens=st.integers(0, 10**6),
    feature_version=st.text(max_size=9),
    image_features=st.lists(NUMBERS, max_size=5).map(tuple),
    artifact=st.text(max_size=9),
    why=st.text(max_size=9),
    probabilities=st.none() | st.lists(NUMBERS, max_size=3).map(tuple),
    price=NUMBERS,
    second_look=st.booleans(),
    shadow_tokens=st.none() | st.sampled_from(LADDER),
)
ROWS = st.builds(
    FeedbackRow,
    answered=RECORDS,
    score=st.floats(0, 1, allow_subnormal=False),
    references=st.lists(st.text(), max_size=2).map(tuple),
    at=NUMBERS,
    idempotency_key=st.none() | st.text(max_size=9),
)

WRITER = """
import asyncio, json, os, resource, sys
from pathlib import Path
from feedback_world import verdict
from serving.journal import FeedbackNotStored, Journal

async def give(journal, name, key=None):
    try:
        await journal.append(verdict(name, key))
    except FeedbackNotStored:
        return False
    print(name, flush=True)
    return True
"""


def writer(code: str, folder: Path, *before: str) -> subprocess.Popen[str]:
    """Another process that runs `code` with the definitions above; `folder` is its first argument."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    command = [*before, sys.executable, "-c", WRITER + code, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})


def names(folder: Path) -> set[str]:
    return {row.answered.decision_id for row in read_feedback(folder).rows}


def failing(sync_errno: int, times: int):
    """An fsync that fails so many times, and then works."""
    left = [times]

    def sync(handle: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(sync_errno, os.strerror(sync_errno))
        os.fsync(handle)

    return sync


@given(ROWS)
def test_a_row_survives_its_line(row: FeedbackRow):
    """Whatever a row and its record hold, they come back, from one line and from a value."""
    line = to_line(row)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert from_line(line) == row and from_value(to_value(row.answered)) == row.answered


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)))
def test_features_as_decimals_are_the_same_float32(features: list[float]):
    """Short decimals give back the very float32 numbers."""
    assert np.array_equal(
        np.array(decimals(np.array(features, np.float32)), np.float32), np.array(features, np.float32)
    )


def test_a_row_checks_itself():
    """A score outside [0, 1], not a number among them, and a scale off the ladder can't become a row."""
    for score in (-0.1, 1.5, float("nan")):
        with pytest.raises(InvalidInput, match=r"score .* must lie in \[0, 1\]"):
            verdict(score=score)
    with pytest.raises(OffLadder):
        answered(tokens=100)


def test_the_last_verdict_on_a_decision_counts(tmp_path: Path):
    """By its time, whichever journal it stands in; rows come in order of their decisions."""
    write_journal(tmp_path / "b.jsonl", [verdict("m3-2", at=5.0), verdict("m3-1", score=0.0, at=9.0)])
    write_journal(tmp_path / "a.jsonl", [verdict("m3-1", score=1.0, at=10.0), verdict("m3-1", score=0.5, at=8.0)])
    read = read_feedback(tmp_path)
    assert [(row.answered.decision_id, row.score) for row in read.rows] == [("m3-1", 1.0), ("m3-2", 1.0)]
    assert read.superseded == 2 and read.torn == 0
    assert read_feedback(tmp_path / "a.jsonl", tmp_path / "b.jsonl") == read


@settings(max_examples=60)
@given(st.data())
def test_a_journal_cut_off_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    """A crash may leave any beginning of what was written: the whole lines are read, the torn one is counted."""
    rows = [verdict(f"m3-{i}") for i in range(4)]
    whole = b"".join(map(to_line, rows))
    end = data.draw(st.integers(0, len(whole)))
    journal = tmp_path_factory.mktemp("cut") / "j.jsonl"
    journal.write_bytes(whole[:end])
    read = read_feedback(journal)
    complete = whole[:end].count(b"\n")
    assert read.rows == tuple(rows[:complete]) and read.torn == int(not whole[:end].endswith(b"\n") and end > 0)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{}", "answered: Field required"),
        (b"not JSON", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (to_line(verdict()).replace(b'"score":1.0', b'"score":1.5').strip(), "must lie in"),
        (to_line(verdict()).replace(b'"score":1.0', b'"score":null').strip(), "score: "),
        (to_line(verdict()).replace(b'"tokens":36', b'"tokens":100').strip(), "not on the ladder"),
        (to_line(verdict()).replace(b'"version":1', b'"version":2').strip(), "version: Input should be 1"),
        (to_line(verdict()).replace(b"[0.5,2.0]", b"[0.5,NaN]").strip(), "image_features.1: "),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, says: str):
    """Any other broken line is an error with its file and number, and doesn't repeat what a caller sent."""
    (tmp_path / "j.jsonl").write_bytes(to_line(verdict()) + line + b"\n" + to_line(verdict("m3-1")))
    with pytest.raises(LabelTableError, match=r"j\.jsonl, line 2: not a line of feedback") as refused:
        read_feedback(tmp_path)
    assert says in str(refused.value) and "How many" not in str(refused.value)


def test_no_journal_is_an_error(tmp_path: Path):
    """A path that isn't there and a folder without journals are told."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(LabelTableError, match="no feedback here"):
            read_feedback(path)


async def test_a_row_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path):
    """The file is synced after its line was written, and the folder after the file was made."""
    synced: list[tuple[str, int]] = []

    def sync(handle: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{handle}"), os.fstat(handle).st_size))
        os.fsync(handle)

    journal = Journal(tmp_path, sync=sync)
    assert await journal.append(verdict()) == "stored"
    (file,) = tmp_path.glob("*.jsonl")
    assert synced[0][0] == str(tmp_path) and synced[1:] == [(str(file), len(to_line(verdict())))]
    assert file.stat().st_mode & 0o777 == 0o600
    await journal.close()


async def test_many_appends_at_once_are_whole_lines(tmp_path: Path):
    """Concurrent requests of one process and of two journals never mix their lines."""
    journals = Journal(tmp_path), Journal(tmp_path)
    await asyncio.gather(*(journals[i % 2].append(verdict(f"m3-{i}", key=f"k{i}")) for i in range(60)))
    read = read_feedback(tmp_path)
    assert len(read.rows) == 60 and read.superseded == read.torn == 0
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    for journal in journals:
        await journal.close()


@pytest.mark.parametrize("acknowledged", [1, 20, 90])
def test_a_writer_that_is_killed_loses_nothing_acknowledged(tmp_path: Path, acknowledged: int):
    """SIGKILL while many appends are under way: every row that was acknowledged is read."""
    code = """
async def main():
    journal = Journal(Path(sys.argv[1]))
    for i in range(0, 10**6, 8):
        await asyncio.gather(*(give(journal, f"m3-{i + j}", f"key-{i + j}") for j in range(8)))
asyncio.run(main())
"""
    process = writer(code, tmp_path)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(acknowledged)]
    process.kill()
    told += process.stdout.readlines()
    process.wait()
    assert {line.strip() for line in told if line.endswith("\n")} <= names(tmp_path)


def test_a_full_disk_refuses_and_recovers(tmp_path: Path):
    """On a file system without room the row is refused and leaves no trace; when there is room, storing goes on."""
    code = """
async def main():
    folder = Path(sys.argv[1]) / "journals"
    journal = Journal(folder)
    stored = [await give(journal, f"before-{i}") for i in range(3)]
    with open(Path(sys.argv[1]) / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(b"x" * 512): pass
        except OSError: pass
    full = [await give(journal, f"full-{i}") for i in range(40)]
    os.unlink(Path(sys.argv[1]) / "filler")
    after = [await give(journal, f"after-{i}") for i in range(3)]
    print(json.dumps([stored, full[-1], after, [p.read_bytes().decode() for p in folder.glob("*.jsonl")]]))
asyncio.run(main())
"""
    mount = f"mount -t tmpfs -o size=64k none {tmp_path} && exec "
    if subprocess.run(["unshare", "-Urm", "sh", "-c", mount + "true"], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs isn't permitted here")
    process = writer(code, tmp_path, "unshare", "-Urm", "sh", "-c", mount + '"$0" "$@"')
    out, _ = process.communicate()
    *told, last = out.splitlines()
    before, full, after, contents = json.loads(last)
    lines = "".join(contents).splitlines(keepends=True)
    assert before == after == [True] * 3 and full is False
    assert {from_line(line.encode()).answered.decision_id for line in lines} == set(told)
    assert all(content.endswith("\n") for content in contents)


def test_a_write_that_is_cut_short_leaves_whole_lines(tmp_path: Path):
    """The kernel takes a part of a line and then refuses (a limit of the file's size): the part is taken back."""
    code = """
async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    journal = Journal(Path(sys.argv[1]))
    given = [await give(journal, f"m3-{i}") for i in range(30)]
    print(json.dumps(given))
asyncio.run(main())
"""
    out, _ = writer(code, tmp_path).communicate()
    *told, last = out.splitlines()
    stored = json.loads(last)
    read = read_feedback(tmp_path)
    assert stored.count(False) >= 2 and stored.count(True) == len(read.rows) and read.torn == 0
    assert names(tmp_path) == set(told)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_a_failed_sync_is_not_acknowledged(tmp_path: Path, code: int):
    """A row that couldn't be made durable is taken back; its file isn't written again, and a retry is stored once."""
    journal = Journal(tmp_path, sync=failing(code, times=3))
    for _ in range(3):
        with pytest.raises(FeedbackNotStored, match="try again"):
            await journal.append(verdict("m3-0", key="k"))
    assert not list(tmp_path.glob("*.jsonl"))
    assert await journal.append(verdict("m3-0", key="k")) == "stored"
    assert await journal.append(verdict("m3-0", key="k")) == "duplicate"
    assert len(read_feedback(tmp_path).rows) == 1
    await journal.close()


async def test_a_disk_that_hangs_delays_for_a_while_only(tmp_path: Path):
    """A caller waits `timeout_s`, and when the disk answers again, feedback is stored again."""
    answers = threading.Event()

    def sync(handle: int) -> None:
        answers.wait()

    journal = Journal(tmp_path, timeout_s=0.02, sync=sync)
    for name in ("late", "never begun"):
        with pytest.raises(FeedbackNotStored, match=r"wasn't confirmed within 0\.02 s"):
            await journal.append(verdict(name))
    answers.set()
    await journal.close()
    assert names(tmp_path) == {"late"}


async def test_journals_may_be_moved_away(tmp_path: Path):
    """After its file was deleted or moved, the next row begins a new one."""
    journal = Journal(tmp_path / "live")
    await journal.append(verdict("m3-0"))
    (file,) = (tmp_path / "live").glob("*.jsonl")
    file.rename(tmp_path / "kept.jsonl")
    await journal.append(verdict("m3-1"))
    assert names(tmp_path / "live") == {"m3-1"} and names(tmp_path / "kept.jsonl") == {"m3-0"}
    await journal.close()


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path):
    """A file in the folder's place is told when the service starts."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FeedbackNotStored, match="can't be made to hold feedback"):
        Journal(tmp_path / "file")


async def test_a_key_is_stored_once_and_kept_over_a_restart(tmp_path: Path):
    """The same content is a duplicate, other content a conflict (409); also for the journals of another process."""
    one = Journal(tmp_path)
    assert await one.append(verdict("m3-0", key="k")) == "stored"
    assert await one.append(verdict("m3-0", key="k", at=2000.0)) == "duplicate"
    await one.close()
    again, beside = Journal(tmp_path), Journal(tmp_path)
    assert await again.append(verdict("m3-0", key="k")) == "duplicate"
    for other in (verdict("m3-0", key="k", score=0.0), verdict("m3-1", key="k"), verdict("m3-0", "k", references=())):
        with pytest.raises(IdempotencyConflict) as conflict:
            await again.append(other)
        assert failure_of(conflict.value).status == 409
    assert await again.append(verdict("m3-5", key="new")) == "stored"
    assert await beside.append(verdict("m3-5", key="new")) == "duplicate"
    assert len(read_feedback(tmp_path).rows) == 2
    await again.close()
    await beside.close()


async def test_a_key_sent_to_two_processes_at_once_is_stored_once(tmp_path: Path):
    """A retry that overtakes its first try, in another process, doesn't double it."""
    code = """
async def main():
    journal = Journal(Path(sys.argv[1]))
    for i in range(40):
        print(await journal.append(verdict(f"m3-{i}", f"key-{i}")))
asyncio.run(main())
"""
    processes = [writer(code, tmp_path) for _ in range(2)]
    told = [process.communicate()[0].split() for process in processes]
    assert sorted(told[0] + told[1]) == ["duplicate"] * 40 + ["stored"] * 40
    assert read_feedback(tmp_path).superseded == 0


async def test_a_torn_or_foreign_line_costs_no_key(tmp_path: Path):
    """Journals with lines of another version and a torn end are read for the keys that they do hold."""
    lines = [b'{"version": 2}\n', to_line(verdict("m3-0", key="k")), to_line(verdict("m3-1", key="torn"))[:50]]
    (tmp_path / "old.jsonl").write_bytes(b"".join(lines))
    journal = Journal(tmp_path)
    assert await journal.append(verdict("m3-0", key="k")) == "duplicate"
    assert await journal.append(verdict("m3-1", key="torn")) == "stored"
    await journal.close()


async def test_a_verdict_joins_what_was_answered(tmp_path: Path):
    """The row holds the record, the score and the reference; an unknown decision is a 404, a bad score a 400."""
    store = FeedbackStore(Records(None), Journal(tmp_path))
    await store.remember(answered("m3-0", shadow_tokens=9))
    assert await store.give("m3-0", 0.5, "four", "k") == "stored"
    (row,) = read_feedback(tmp_path).rows
    assert row.answered == answered("m3-0", shadow_tokens=9) and row.score == 0.5 and row.references == ("four",)
    for unknown in ("m3-1", "x" * 10_000):
        with pytest.raises(UnknownDecision, match="nothing is known of decision") as missing:
            await store.give(unknown, 1.0)
        assert failure_of(missing.value).status == 404 and len(str(missing.value)) < 200
    for bad in ({"score": 1.5}, {"score": 1.0, "reference": "x" * 1001}, {"score": 1.0, "idempotency_key": ""}):
        with pytest.raises(InvalidInput):
            await store.give("m3-0", **bad)
    await store.close()


async def test_a_retry_may_outlive_its_record(tmp_path: Path):
    """What was stored under a key is a duplicate after a restart, when nobody remembers the answer any more."""
    store = FeedbackStore(Records(None), Journal(tmp_path))
    await store.remember(answered("m3-0"))
    await store.give("m3-0", 1.0, idempotency_key="k")
    await store.close()
    again = FeedbackStore(Records(None), Journal(tmp_path))
    assert await again.give("m3-0", 1.0, idempotency_key="k") == "duplicate"
    with pytest.raises(UnknownDecision):
        await again.give("m3-0", 1.0, idempotency_key="another")
    await again.close()


async def test_records_are_bounded_and_expire():
    """The oldest go first, and all of them when their time is over."""
    records = Records(None, entries=2)
    for name in ("m3-0", "m3-1", "m3-2"):
        await records.remember(answered(name))
    assert await records.recall("m3-0") is None and await records.recall("m3-1") == answered("m3-1")
    short = Records(None, ttl_s=0.0)
    await short.remember(answered("m3-0"))
    assert await short.recall("m3-0") is None


@pytest.mark.redis
async def test_another_process_knows_what_one_has_answered(redis_server: RedisProcess):
    """Records go over Redis and live there for their time; garbage is nothing known."""
    one = Records(redis_server.url, ttl_s=3600, timeout_ms=PATIENT_MS)
    other = Records(redis_server.url, timeout_ms=PATIENT_MS)
    await one.remember(answered("m3-0"))
    await one.flush()
    assert await other.recall("m3-0") == answered("m3-0") and await other.recall("m3-1") is None
    with redis.Redis.from_url(redis_server.url) as client:
        (key,) = client.keys("*")
        assert 3500 < client.ttl(key) <= 3600
        for garbage in (b"", b"\xff", b"[]", to_value(answered("m3-0")).replace(b'"version":1', b'"version":9')):
            client.set(key, garbage)
            assert await other.recall("m3-0") is None
        client.delete(key)
        client.rpush(key, "a list")
    assert await other.recall("m3-0") is None and other.garbage == 4 and not other.failing
    await one.close()
    await other.close()


@pytest.mark.redis
async def test_a_dead_redis_is_no_404(redis_server: RedisProcess, tmp_path: Path):
    """While nobody can say whether a decision is known, the caller may try again; what this process knows is stored."""
    store = FeedbackStore(Records(redis_server.url, timeout_ms=PATIENT_MS), Journal(tmp_path))
    await store.remember(answered("m3-0"))
    redis_server.kill()
    for _ in range(BREAK_AFTER + 2):
        with pytest.raises(FeedbackNotStored, match="Redis can't say"):
            await store.give("m3-elsewhere", 1.0)
    assert await store.give("m3-0", 1.0) == "stored"
    await store.close()


async def test_no_redis_where_one_is_named_fails_no_answer():
    """Remembering goes on in process with nobody listening."""
    records = Records(f"redis://127.0.0.1:{free_port()}/0")
    for i in range(BREAK_AFTER + 2):
        await records.remember(answered(f"m3-{i}"))
        await records.flush()
    assert await records.recall("m3-0") == answered("m3-0")
    await records.close()
