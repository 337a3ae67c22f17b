"""What is routed: one picture with one question."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from complexity.errors import InvalidInput
from complexity.image_features import image_features
from complexity.picture import Decoded, decode_picture


@dataclass(frozen=True)
class Sample:
    """An image-question pair: the picture's encoded bytes as they came, and the question.

    Digests are over the original bytes, never over pixels: pixels of different modes and sizes can collide.

    The picture and its features are kept by hand: the lock of Python 3.11's cached_property is shared by all samples,
    and would let only one thread at a time decode a picture.
    """

    image: bytes
    question: str
    side: int | None = None  # pixels that the model needs of a picture's shorter side; None: all there are
    _decoded: Decoded | None = field(default=None, init=False, repr=False, compare=False)
    _features: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise InvalidInput("the question is empty")

    @property
    def decoded(self) -> Decoded:
        """The picture, decoded once at the size that the model needs; shared by the features and the model.

        Raises:
            InvalidInput: the bytes are not an acceptable picture.
        """
        decoded = self._decoded
        if decoded is None:
            decoded = decode_picture(self.image, self.side)
            object.__setattr__(self, "_decoded", decoded)
        return decoded

    @property
    def picture(self) -> Image.Image:
        """The decoded RGB picture; raises as `decoded` does."""
        return self.decoded.picture

    @property
    def image_features(self) -> np.ndarray:
        """The picture's features (F,), not writable, computed once; raises as `decoded` does."""
        features = self._features
        if features is None:
            features = image_features(self.picture, self.decoded.size)
            features.setflags(write=False)
            object.__setattr__(self, "_features", features)
        return features

    @cached_property
    def image_sha256(self) -> str:
        """Hex SHA-256 of the picture's bytes."""
        return hashlib.sha256(self.image).hexdigest()

    @cached_property
    def question_sha256(self) -> str:
        """Hex SHA-256 of the question, UTF-8."""
        return hashlib.sha256(self.question.encode()).hexdigest()
