"""Generates sentences with a small grammar: what people say to a smart home or on the telephone."""

import hashlib
from collections.abc import Iterator
from typing import Literal

import numpy as np

Part = Literal["train", "test", "words"]

# One sentence in eight is a test sentence. A hash of its words decides, so no sentence is ever in
# both parts, whatever the seed and the number of sentences.
TEST_SHARE = 8

ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

# A slot in braces of a template takes one of its words. "number", "digits" and "clock" are built
# from several words instead.
WORDS = {
    "room": "kitchen bedroom bathroom hallway garage office garden attic basement nursery "
    "library balcony".split(),
    "thing": "lamp heater fan radio television speaker oven printer camera kettle".split(),
    "cover": "window door gate curtain blind shutter".split(),
    "name": "Anna Peter Maria George Helen Robert Julia Martin Sophie Daniel Laura Victor "
    "Emma Oscar Nina Simon".split(),
    "person": "doctor dentist plumber teacher neighbour baker lawyer driver".split(),
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "when": ["this morning", "this afternoon", "tonight", "tomorrow", "next week", "right now"],
    "item": "milk bread butter apples coffee cheese sugar tomatoes rice honey lemons "
    "onions".split(),
    "amount": ["a bottle of", "a bag of", "some", "more", "a box of", "a kilo of"],
    "colour": "red green blue yellow white orange purple".split(),
    "music": "jazz piano guitar violin opera rock".split(),
    "chore": ["water the plants", "feed the cat", "walk the dog", "pay the rent",
              "wash the car", "post the letter", "clean the oven", "book the hotel"],
    "city": "London Paris Berlin Madrid Vienna Dublin Boston Toronto".split(),
    "please": ["please", "could you", "can you"],
}  # fmt: skip

TEMPLATES = (
    "turn on the {thing} in the {room}",
    "turn off the {thing} in the {room} at {clock}",
    "switch the {room} lights to {colour}",
    "{please} dim the {room} lights to {number} percent",
    "set the {room} to {number} degrees",
    "{please} open the {cover} in the {room}",
    "close the {room} {cover} {when}",
    "is the {room} {cover} still open",
    "wake me up at {clock} on {day}",
    "set a timer for {number} minutes",
    "remind me to {chore} at {clock}",
    "remind {name} to {chore} on {day}",
    "{please} call {name} in {city}",
    "call extension {digits}",
    "dial {digits} and ask for {name}",
    "transfer me to the {person} {when}",
    "your call to {name} will cost {number} cents",
    "you have {number} new messages from {name}",
    "play some {music} in the {room}",
    "{please} turn the {music} down to {number}",
    "add {amount} {item} to the list",
    "order {amount} {item} and {amount} {item}",
    "how is the weather in {city} on {day}",
    "when does the train to {city} leave",
    "the train to {city} leaves at {clock}",
    "the {person} is coming on {day} at {clock}",
    "tell {name} that dinner is at {clock}",
    "my number is {digits}",
)


def sentences(part: Part, count: int, seed: int) -> list[str]:
    """Generates distinct sentences of one part. The same arguments give the same list everywhere.

    Args:
        part: "train" or "test", which never share a sentence; or "words", which gives one to four
            words of the vocabulary in random order. A model cannot guess such words, so it learns
            to listen before it learns the grammar.
        count: number of sentences.
        seed: seed for the choice of sentences.
    """
    bits = np.random.PCG64(seed)
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        sentence = _words(_Draws(bits)) if part == "words" else _sentence(_Draws(bits))
        if part == "words" or _part(sentence) == part:
            chosen[sentence] = None
    return list(chosen)


def vocabulary() -> set[str]:
    """Returns every word of the grammar in lower case, and "oh", which people say for zero."""
    phrases = [*TEMPLATES, *ONES, *TEENS, *TENS, "zero oh past to half quarter"]
    phrases += [phrase for choices in WORDS.values() for phrase in choices]
    return {word.lower() for phrase in phrases for word in phrase.split() if "{" not in word}


class _Draws:
    """Draws numbers from raw bits, because only raw bits are the same in all versions of NumPy."""

    def __init__(self, bits: np.random.PCG64) -> None:
        self._bits = bits

    def below(self, limit: int) -> int:
        return int(self._bits.random_raw() % limit)

    def one_of(self, choices: list[str] | tuple[str, ...]) -> str:
        return choices[self.below(len(choices))]


def _sentence(draws: _Draws) -> str:
    return " ".join(_filled(draws.one_of(TEMPLATES), draws))


def _words(draws: _Draws) -> str:
    known = sorted(vocabulary())
    return " ".join(draws.one_of(known) for _ in range(1 + draws.below(4)))


def _filled(template: str, draws: _Draws) -> Iterator[str]:
    for word in template.split():
        slot = word.strip("{}")
        if slot == word:
            yield word
        elif slot == "number":
            yield _number(draws)
        elif slot == "digits":
            yield " ".join(draws.one_of(("zero", *ONES)) for _ in range(3 + draws.below(2)))
        elif slot == "clock":
            yield _clock(draws)
        else:
            yield draws.one_of(WORDS[slot])


def _number(draws: _Draws) -> str:
    number = 2 + draws.below(98)
    if number < 10:
        return ONES[number - 1]
    if number < 20:
        return TEENS[number - 10]
    tens = TENS[number // 10 - 2]
    return f"{tens} {ONES[number % 10 - 1]}" if number % 10 else tens


def _clock(draws: _Draws) -> str:
    hour = draws.one_of((*ONES, *TEENS[:3]))
    forms = ("half past {}", "quarter to {}", "quarter past {}", "ten to {}", "{} thirty", "{}")
    return draws.one_of(forms).format(hour)


def _part(sentence: str) -> Part:
    digest = hashlib.sha256(sentence.encode()).digest()
    return "test" if digest[0] % TEST_SHARE == 0 else "train"
