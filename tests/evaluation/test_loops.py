import pytest

from fastwhisper_jax.evaluation.error_rates import error_rates
from fastwhisper_jax.evaluation.loops import LoopCost, is_loop, loop_cost

SENTENCE = "please enter your agent number followed by the pound key "
LONG = (
    "press one to hear the message, press two to hear the next one, press three to hear the one "
    "before, press four to hear the date, press five to hear who sent it, press six to hear all "
    "of this again, press seven to hear the options, or press the pound key to leave"
)
CHINESE = "请输入您的密码然后按井号键"
JAPANESE = "ご利用ありがとうございます"

LOOPS = {
    "one word": ("zero one two three", "zero " * 12),
    "digits": ("1 8 0 0 5 5 5", "1 8 0 0 " + "5 " * 20),
    "digits without spaces": ("1800555", "1800" + "5" * 14),
    "a sentence": (SENTENCE * 3, SENTENCE * 9),
    "an end of a right text": (LONG, LONG + " to leave" * 20),
    "Chinese": (CHINESE * 3, CHINESE * 9),
    "one Chinese character": (CHINESE, CHINESE + "谢" * 12),
    "Japanese": (JAPANESE, "ございます" * 8),
    "more repeats than were said": ("zero " * 7, "zero " * 13),
    "a text that runs on": ("one", "one two three four five six seven"),
    "a text where nothing was said": ("", "thank you very much for watching"),
}
NO_LOOPS = {
    "a repeat that was said": ("zero zero zero zero zero zero zero", "zero " * 7),
    "a repeat that was said, with one more": ("zero " * 7, "zero " * 8),
    "digits that were said": ("0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", "0 " * 15),
    "digits that were said, without spaces": ("0" * 15, "0" * 15),
    "a long text": (LONG, LONG),
    "a repeat that was said, misheard each time": (LONG, LONG.replace("press ", "dress ")),
    "a text twice": (SENTENCE, SENTENCE * 2),
    "five times": ("please wait here for a while", "please wait " * 5),
    "Chinese": (CHINESE, CHINESE),
    "Chinese that was repeated": ("谢" * 12, "谢" * 12),
    "Japanese": (JAPANESE, JAPANESE),
    "nothing": ("", ""),
    "nothing heard": (SENTENCE, ""),
    "a few characters where nothing was said": ("", "thank you"),
    "shorter than a stretch": ("a", "b"),
}


@pytest.mark.parametrize("texts", LOOPS.values(), ids=LOOPS)
def test_a_hypothesis_that_repeats_itself_or_runs_on_is_a_loop(texts):
    assert is_loop(*texts)


@pytest.mark.parametrize("texts", NO_LOOPS.values(), ids=NO_LOOPS)
def test_what_was_said_or_is_merely_wrong_is_no_loop(texts):
    assert not is_loop(*texts)


def test_the_bounds_are_those_of_the_definition():
    """Six characters, six times more often than in the reference; or three times its length and 20
    characters.
    """
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 51)))
    for said in (1, 3):
        reference = letters + "abcdef" * said
        assert not is_loop(reference, "ghijkl" * (said + 5))
        assert is_loop(reference, "ghijkl" * (said + 6))
    assert not is_loop(letters, "".join(f"abcde{number}" for number in range(9)))
    assert not is_loop("0123456789", letters[:50])
    assert is_loop("0123456789", letters)


def cost(references, hypotheses, loops):
    return loop_cost(references, hypotheses, loops, error_rates(references, hypotheses, str))


def test_errors_are_divided_between_loops_and_all_other_utterances():
    references, hypotheses = ["a b", "c d e", "f"], ["a b", "c c c c c", "g"]
    # "c d e" to five times "c": two substitutions and two insertions.
    assert cost(references, hypotheses, [False, True, False]) == LoopCost(1, 4, 1 / 3)


def test_without_loops_the_word_error_rate_is_that_of_all_utterances():
    references, hypotheses = ["a b", "c"], ["a x", "c"]
    assert cost(references, hypotheses, [False, False]) == LoopCost(0, 0, 1 / 3)


def test_a_loop_where_nothing_was_said_costs_insertions_only():
    assert cost(["a b", ""], ["a b", "c c c"], [False, True]) == LoopCost(1, 3, 0.0)


def test_there_is_no_rate_where_only_loops_have_words():
    assert cost(["a", ""], ["a a a", "b"], [True, False]) == LoopCost(1, 2, None)
