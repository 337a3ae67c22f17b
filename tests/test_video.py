"""Videos as collages: which frames are taken and where they stand."""

import shutil

import av
import numpy as np
import pytest
from PIL import Image
from test_llava import GOLDEN, change

from complexity.errors import InvalidInput
from serving.ask import main
from serving.m3 import load
from serving.m3.video import collage, evenly_spaced


def write(path, shades, size=(64, 36)):
    """A video of plain gray frames, losslessly coded."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "gray"
        for shade in shades:
            frame = av.VideoFrame.from_ndarray(np.full(size[::-1], shade, np.uint8), "gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shades(frames):
    return [frame.convert("L").getpixel((5, 5)) for frame in frames]


def test_frames_are_the_middles_of_equal_parts(tmp_path):
    """Of 12 frames in 6 parts, the second of each pair; of 3 frames, each twice."""
    long = write(tmp_path / "long.mkv", range(0, 240, 20))
    assert shades(evenly_spaced(long, 6)) == [20, 60, 100, 140, 180, 220]
    short = write(tmp_path / "short.mkv", [10, 100, 200])
    assert shades(evenly_spaced(short, 6)) == [10, 10, 100, 100, 200, 200]


def test_a_collage_has_three_rows_of_two(tmp_path):
    """Six frames in reading order."""
    whole = collage(write(tmp_path / "video.mkv", range(0, 240, 20)))
    assert whole.size == (128, 108)
    assert [whole.convert("L").getpixel((64 * c + 32, 36 * r + 18)) for r in range(3) for c in range(2)] == [
        20, 60, 100, 140, 180, 220,
    ]  # fmt: skip


def test_a_collage_that_is_not_full_ends_in_black(tmp_path):
    """Five frames leave the last place empty; large frames are made smaller."""
    whole = collage(write(tmp_path / "video.mkv", [200] * 5, (1280, 720)), frames=5)
    assert whole.size == (1344, 3 * 378)
    assert whole.getpixel((1000, 1000)) == (0, 0, 0) and whole.getpixel((300, 1000)) != (0, 0, 0)


def test_a_wide_video_gets_two_by_two_tiles(tmp_path):
    """Five tiles of LLaVA-NeXT: 5, 45, 180, 720, 2880 tokens, and one more at the end of each row of the grid."""
    m3 = load(GOLDEN / "ckpt" / "llavanext-tiny-m3")
    (picture,) = m3.encode([collage(write(tmp_path / "video.mkv", [90] * 6, (640, 384))).resize((672, 672))])
    assert picture.grid == (2, 2)
    for tokens in m3.ladder:
        rows = 2 * int(tokens**0.5)
        assert len(m3.model.visual(picture, tokens)) == 5 * tokens + rows


def test_merged_flat_a_video_has_the_papers_token_counts(tmp_path):
    """Without newlines, as the paper counts: five tiles of 1 to 576 tokens."""
    shutil.copytree(GOLDEN / "ckpt", tmp_path / "ckpt")
    folder = tmp_path / "ckpt" / "llavanext-tiny-m3"
    change(folder, mm_patch_merge_type="flat")
    m3 = load(folder)
    (picture,) = m3.encode([collage(write(tmp_path / "video.mkv", [90] * 6, (640, 384))).resize((672, 672))])
    assert [len(m3.model.visual(picture, tokens)) for tokens in m3.ladder] == [5, 45, 180, 720, 2880]


@pytest.mark.parametrize("content", [b"", b"no video", "picture", "cut"])
def test_what_is_no_video_is_one_clear_error(tmp_path, content):
    """Empty, text, cut short in its header: an error that names the file. A picture is a video of one frame."""
    file = tmp_path / "video.mkv"
    if content == "picture":
        Image.new("RGB", (40, 30), "red").save(file, "PNG")
        assert collage(file).size == (80, 90)
        return
    file.write_bytes(write(tmp_path / "whole.mkv", [10] * 20).read_bytes()[:200] if content == "cut" else content)
    with pytest.raises(InvalidInput, match=r"video\.mkv"):
        collage(file)


def test_ask_m3_takes_a_video(tmp_path, capsys):
    """The collage is routed and answered like any picture; a broken video is one line."""
    video = write(tmp_path / "video.mkv", [30] * 6)
    assert main(["--video", str(video), "What color is the background?"]) == 0
    (tmp_path / "broken.mp4").write_text("broken")
    assert main(["--video", str(tmp_path / "broken.mp4"), "What?"]) == 2
    assert capsys.readouterr().err.count("broken.mp4") == 1
