from skills.text_statistics.scripts import count


def test_counts_words_and_sentences() -> None:
    told = count.statistics("It rains. It don't stop, does it?")
    assert (told["words"], told["sentences"], told["distinct"]) == (7, 2, 5)
    assert told["wordsPerSentence"] == 3.5


def test_nothing_is_nothing() -> None:
    assert count.statistics("")["sentences"] == 0
