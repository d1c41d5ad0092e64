"""The answer to a question as a span of a context: extractive reading comprehension, SQuAD and KorQuAD."""
