"""Errors as types: the key that a message begins with, and the nearest word as data."""

from dltips.errors import ConfigError, OutputError, WrongType, suggest


def test_a_message_begins_with_its_key() -> None:
    assert ConfigError("optimizer.lr: 'x' is not a number").key == "optimizer.lr"
    assert isinstance(OutputError("outputs: x cannot be written"), ConfigError)
    assert WrongType("epochs: 1.5 is not a whole number", int).wanted is int


def test_the_nearest_word_is_data() -> None:
    near = suggest("Hee", ["xavier", "he"])
    assert near and near.nearest == "he" and str(near) == "; did you mean he?" == near.or_else("; see the list")
    far = suggest("zzz", ["b", "a"])
    assert not far and far.nearest is None and far.known == ("a", "b")
    assert str(far) == "; there is: a, b" and far.or_else("; see the list") == "; see the list"
