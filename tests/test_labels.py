"""Label tables: what is written is read back, and every kind of broken table is refused with its reason."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from complexity.errors import LabelTableError
from complexity.labels import LabelMeta, LabelRow, done_samples, oracle, read_labels, write_shard

LADDER = (1, 9, 36)
META = LabelMeta(ladder=LADDER, feature_version="f1", model="m3-test", sweep_version="s1")


def row(sample: int, tokens: int, **changes) -> LabelRow:
    made = LabelRow(
        sample_id=f"s{sample:04d}",
        dataset="drawn",
        task="count",
        split="train",
        image_sha256=f"{sample // 2:064x}",
        question="How many?",
        references=["3", "three"],
        model="m3-test",
        tokens=tokens,
        visual_tokens=tokens + 1,
        prediction="3",
        score=1.0 if tokens >= 9 else 0.0,
        mean_logprob=-0.25 * tokens,
        generated_tokens=2,
        image_features=[sample + 0.5, 2.0],
    )
    return dataclasses.replace(made, **changes)


def rows(samples, ladder=LADDER) -> list[LabelRow]:
    return [row(sample, tokens) for sample in samples for tokens in ladder]


def test_a_written_table_reads_back_per_sample(tmp_path: Path):
    """Scores, log-probabilities and tokens land in the column of their scale, whatever the order of the rows."""
    written = rows(range(5))
    write_shard(tmp_path / "a.parquet", written[::-1], META)
    table = read_labels(tmp_path / "a.parquet")
    assert table.meta == META and table.ladder == LADDER and len(table) == 5
    assert table.sample_id.tolist() == [f"s{i:04d}" for i in range(5)]
    assert table.score.tolist() == [[0, 1, 1]] * 5
    assert table.mean_logprob.tolist() == [[-0.25, -2.25, -9.0]] * 5
    assert table.visual_tokens.tolist() == [[2, 10, 37]] * 5
    assert table.image_features.dtype == np.float32
    assert table.image_features.tolist() == [[i + 0.5, 2.0] for i in range(5)]
    assert table.question[0] == "How many?" and table.task[0] == "count" and table.split[0] == "train"


def test_a_sample_may_span_shards(tmp_path: Path):
    """A folder of shards is one table, also when a sample's scales lie in different files."""
    everything = rows(range(4))
    write_shard(tmp_path / "0.parquet", everything[:5], META)
    write_shard(tmp_path / "1.parquet", everything[5:], META)
    assert read_labels(tmp_path).score.shape == (4, 3)


def test_select_keeps_all_columns_in_step(tmp_path: Path):
    """A boolean mask and an index array pick the same samples in every column."""
    write_shard(tmp_path / "a.parquet", rows(range(6)), META)
    table = read_labels(tmp_path)
    masked, indexed = table.select(np.arange(6) % 2 == 1), table.select(np.array([1, 3, 5]))
    assert masked.sample_id.tolist() == indexed.sample_id.tolist() == ["s0001", "s0003", "s0005"]
    assert masked.image_features[:, 0].tolist() == [1.5, 3.5, 5.5] and masked.meta == META


def test_a_failed_write_leaves_nothing(tmp_path: Path):
    """A row that can't be stored leaves no shard and no temporary file."""
    with pytest.raises((pa.ArrowException, TypeError, ValueError)):
        write_shard(tmp_path / "a.parquet", [row(0, 1, question=object())], META)
    assert list(tmp_path.iterdir()) == []


def test_a_rewritten_shard_replaces_the_old_one(tmp_path: Path):
    """Writing to an existing path replaces it whole."""
    write_shard(tmp_path / "a.parquet", rows(range(3)), META)
    write_shard(tmp_path / "a.parquet", rows(range(1)), META)
    assert len(read_labels(tmp_path)) == 1


def test_done_samples_are_those_at_every_scale(tmp_path: Path):
    """A sweep resumes after the samples that have all scales; leftovers of a killed writer don't count."""
    assert done_samples(tmp_path / "nowhere") == set()
    write_shard(tmp_path / "0.parquet", rows([0, 1]) + [row(2, 1), row(2, 9)], META)
    (tmp_path / ".1-abc.tmp").write_bytes(b"half a shard")
    assert done_samples(tmp_path) == {"s0000", "s0001"}
    write_shard(tmp_path / "1.parquet", [row(2, 36)], META)
    assert done_samples(tmp_path) == {"s0000", "s0001", "s0002"}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (rows([0]) + [row(1, 1)], r"s0001 lacks scale\(s\) \[9, 36\]"),
        (rows([0]) + [row(0, 9)], "s0000 appears twice at 9 tokens"),
        (rows([0]) + [row(1, t, question="a" if t == 1 else "b") for t in LADDER], "s0001 has more than one question"),
        (rows([0]) + [row(1, t, image_features=[1.0]) for t in LADDER], r"\[1, 2\] image_features"),
        (rows([0]) + [row(1, t, image_features=[1.0, float("nan")]) for t in LADDER], "s0001.*not finite"),
        (rows([0]) + [row(1, t, split="dev") for t in LADDER], "unknown split 'dev'"),
        ([], "empty"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path, bad: list[LabelRow], says: str):
    """Missing scales, duplicates, disagreeing rows and unknown splits are named."""
    write_shard(tmp_path / "a.parquet", bad, META)
    with pytest.raises(LabelTableError, match=says):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row(0, 10), "10 tokens, ladder is"),
        (row(0, 9, score=1.5), "score 1.5"),
        (row(0, 9, score=float("nan")), "score nan"),
        (row(0, 9, model="other"), "model 'other'"),
    ],
)
def test_a_row_that_does_not_fit_is_not_written(tmp_path: Path, bad: LabelRow, says: str):
    """Scores outside [0, 1], numbers off the ladder and other models' rows are refused on writing."""
    with pytest.raises(LabelTableError, match=says):
        write_shard(tmp_path / "a.parquet", [bad], META)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_score_in_a_foreign_file_is_refused(tmp_path: Path):
    """A file that didn't come from write_shard is checked on reading too."""
    write_shard(tmp_path / "a.parquet", rows([0]), META)
    stored = pq.read_table(tmp_path / "a.parquet")
    at = stored.column_names.index("score")
    worse = stored.set_column(at, stored.schema.field(at), pa.array([0.0, 7.0, 0.0], pa.float32()))
    pq.write_table(worse, tmp_path / "a.parquet")
    with pytest.raises(LabelTableError, match="s0000 has score 7.0"):
        read_labels(tmp_path)


def test_shards_that_disagree_are_refused(tmp_path: Path):
    """Shards of two sweeps can't be mixed; both are named."""
    write_shard(tmp_path / "0.parquet", rows([0]), META)
    write_shard(tmp_path / "1.parquet", rows([1]), dataclasses.replace(META, sweep_version="s2"))
    with pytest.raises(LabelTableError, match=r"1\.parquet holds .*s2.*0\.parquet holds .*s1"):
        read_labels(tmp_path)


def test_broken_and_foreign_files_are_refused(tmp_path: Path):
    """No table, a truncated shard, another schema version, a missing column: each is said plainly."""
    with pytest.raises(LabelTableError, match="no label table here"):
        read_labels(tmp_path)
    write_shard(tmp_path / "a.parquet", rows(range(4)), META)
    whole = (tmp_path / "a.parquet").read_bytes()
    stored = pq.read_table(tmp_path / "a.parquet")

    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabelTableError, match="not a readable Parquet file"):
        read_labels(tmp_path)

    newer = {**stored.schema.metadata, b"m3.schema_version": b"99"}
    pq.write_table(stored.replace_schema_metadata(newer), tmp_path / "a.parquet")
    with pytest.raises(LabelTableError, match="schema version 99, this code reads version 2"):
        read_labels(tmp_path)

    pq.write_table(stored.drop_columns(["score"]), tmp_path / "a.parquet")
    with pytest.raises(LabelTableError, match="column 'score' is missing, expected float"):
        read_labels(tmp_path)

    falling = {**stored.schema.metadata, b"m3.ladder": b"[36, 9, 1]"}
    pq.write_table(stored.replace_schema_metadata(falling), tmp_path / "a.parquet")
    with pytest.raises(LabelTableError, match="not a rising list"):
        read_labels(tmp_path)


def test_oracle_takes_the_fewest_right_tokens_and_names_its_convention():
    """Unsolved samples are charged one token or the finest scale, by the convention asked for."""
    score = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0.4, 0.5]])
    coarse, fine = oracle(score, LADDER, unsolved="coarsest"), oracle(score, LADDER, unsolved="finest")
    assert coarse.tokens.tolist() == [9, 1, 1, 36] and fine.tokens.tolist() == [9, 1, 36, 36]
    assert coarse.right.tolist() == fine.right.tolist() == [True, True, False, True]


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=3), min_size=1, max_size=20))
def test_oracle_equals_a_plain_loop(scores: list[list[float]]):
    """The vectorised oracle is the sentence of the paper, sample by sample."""
    got = oracle(np.array(scores), LADDER, unsolved="finest")
    for sample, tokens, right in zip(scores, got.tokens, got.right, strict=True):
        solved = [rung for rung, score in zip(LADDER, sample, strict=True) if score >= 0.5]
        assert right == bool(solved) and tokens == (solved[0] if solved else LADDER[-1])
