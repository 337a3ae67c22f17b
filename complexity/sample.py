"""What is routed: one picture with one question."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from PIL import Image

from complexity.errors import InvalidInput
from complexity.picture import Decoded, decode_picture


@dataclass(frozen=True)
class Sample:
    """An image-question pair: the picture's encoded bytes as they came, and the question.

    Digests are over the original bytes, never over pixels: pixels of different modes and sizes can collide.
    """

    image: bytes
    question: str
    side: int | None = None  # pixels that the model needs of a picture's shorter side; None: all there are

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise InvalidInput("the question is empty")

    @cached_property
    def decoded(self) -> Decoded:
        """The picture, decoded once at the size that the model needs; shared by the features and the model.

        Raises:
            InvalidInput: the bytes are not an acceptable picture.
        """
        return decode_picture(self.image, self.side)

    @property
    def picture(self) -> Image.Image:
        """The decoded RGB picture; raises as `decoded` does."""
        return self.decoded.picture

    @cached_property
    def image_sha256(self) -> str:
        """Hex SHA-256 of the picture's bytes."""
        return hashlib.sha256(self.image).hexdigest()

    @cached_property
    def question_sha256(self) -> str:
        """Hex SHA-256 of the question, UTF-8."""
        return hashlib.sha256(self.question.encode()).hexdigest()
