"""Integers in few bytes: an adaptive binary range coder, in integers throughout, hence the same bytes everywhere.

A number is the length of its magnitude in bits, in unary, then its sign, then the bits below the leading one. Every
decision of the length, and the two bits behind the leading one, has a probability that follows what was coded before;
of numbers that are spread as a bell this loses a few hundredths of a bit against their entropy. The arithmetic is that
of the range coder of LZMA: a range of 32 bits, with carries into the bytes that are already out.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["LARGEST", "RangeDecoder", "RangeEncoder"]

_LENGTHS = 24
LARGEST = 2**_LENGTHS - 1
"""The largest magnitude: float32 holds each of these integers."""

_TOP, _MASK = 1 << 24, (1 << 32) - 1
_ONE, _HALF = 1 << 16, 1 << 15
# A decision halves its distance to what it sees at first, later it takes a 64th.
_SLOWEST = 6


class _Model:
    """Probabilities of zero, in 65,536ths, and how often each was used; one for each decision that adapts."""

    def __init__(self) -> None:
        # Lengths; then, per length, the bit behind the leading one and the next, which depends on that.
        self.probability = [_HALF] * (_LENGTHS + 1 + 4 * (_LENGTHS + 1))
        self.uses = [0] * len(self.probability)

    def learn(self, context: int, bit: int) -> None:
        used = self.uses[context] = min(self.uses[context] + 1, _SLOWEST)
        at = self.probability[context]
        at += -(at >> used) if bit else (_ONE - at) >> used
        # Neither answer ever costs more than the range has.
        self.probability[context] = min(max(at, 64), _ONE - 64)


def _context(length: int, place: int, above: int) -> int:
    """Of a bit behind the leading one: `place` counts from there, `above` is the bit between."""
    return _LENGTHS + 1 + 4 * length + 2 * place + above


class RangeEncoder:
    """Collects integers.

    Example:
        >>> encoder = RangeEncoder()
        >>> encoder.integers([3, -1, 0, 2])
        >>> data = encoder.finish()
        >>> RangeDecoder(data).integers(4)
        [3, -1, 0, 2]
    """

    def __init__(self) -> None:
        self._low, self._range = 0, _MASK
        self._out = bytearray()

    def integers(self, values: Iterable[int]) -> None:
        """Add integers that are spread alike.

        Raises:
            ValueError: One is larger than `LARGEST`.
        """
        model = _Model()
        for value in values:
            if abs(value) > LARGEST:
                raise ValueError(f"values: got {value}, expected magnitudes up to {LARGEST}")
            self._integer(model, value)

    def _integer(self, model: _Model, value: int) -> None:
        magnitude = abs(value)
        length = magnitude.bit_length()
        for context in range(length):
            self._adaptive(model, context, 1)
        if length < _LENGTHS:
            self._adaptive(model, length, 0)
        if length:
            self._plain(value < 0)
        above = 0
        for place, shift in enumerate(range(length - 2, -1, -1)):
            bit = magnitude >> shift & 1
            if place < 2:
                self._adaptive(model, _context(length, place, above), bit)
            else:
                self._plain(bit)
            above = bit

    def _adaptive(self, model: _Model, context: int, bit: int) -> None:
        below = (self._range >> 16) * model.probability[context]
        model.learn(context, bit)
        self._take(below, bit)

    def _plain(self, bit: int) -> None:
        self._take(self._range >> 1, bit)

    def _take(self, below: int, bit: int) -> None:
        if bit:
            self._low += below
            self._range -= below
        else:
            self._range = below
        while self._range < _TOP:
            self._shift()
            self._range <<= 8

    def _shift(self) -> None:
        """Move the highest byte out."""
        if self._low > _MASK:
            self._carry()
        self._out.append(self._low >> 24 & 0xFF)
        self._low = self._low << 8 & _MASK

    def _carry(self) -> None:
        place = len(self._out) - 1
        while self._out[place] == 0xFF:
            self._out[place] = 0
            place -= 1
        self._out[place] += 1
        self._low &= _MASK

    def finish(self) -> bytes:
        """Everything that was added. The decoder takes zeros for what is missing behind."""
        # Of all numbers in the range that with the most zeros at its end.
        for bits in range(31, -1, -1):
            rounded = (self._low + (1 << bits) - 1) >> bits << bits
            if rounded < self._low + self._range:
                self._low = rounded
                break
        for _ in range(4):
            self._shift()
        return bytes(self._out).rstrip(b"\0")


class RangeDecoder:
    """Gives back what a `RangeEncoder` collected; groups in the same order and of the same sizes.

    Any bytes give some integers: whether they are the right ones, a checksum must say.

    Args:
        data: What `RangeEncoder.finish` gave.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 4
        self._code, self._range = int.from_bytes(data[:4].ljust(4, b"\0"), "big"), _MASK

    def integers(self, count: int) -> list[int]:
        """The next group."""
        model = _Model()
        return [self._integer(model) for _ in range(count)]

    def _integer(self, model: _Model) -> int:
        length = 0
        while length < _LENGTHS and self._adaptive(model, length):
            length += 1
        if not length:
            return 0
        negative = self._plain()
        magnitude, above = 1, 0
        for place in range(length - 1):
            above = self._adaptive(model, _context(length, place, above)) if place < 2 else self._plain()
            magnitude = magnitude << 1 | above
        return -magnitude if negative else magnitude

    def _adaptive(self, model: _Model, context: int) -> int:
        bit = self._take((self._range >> 16) * model.probability[context])
        model.learn(context, bit)
        return bit

    def _plain(self) -> int:
        return self._take(self._range >> 1)

    def _take(self, below: int) -> int:
        bit = int(self._code >= below)
        if bit:
            self._code -= below
            self._range -= below
        else:
            self._range = below
        while self._range < _TOP:
            following = self._data[self._place] if self._place < len(self._data) else 0
            self._code, self._place = (self._code << 8 | following) & _MASK, self._place + 1
            self._range <<= 8
        return bit
