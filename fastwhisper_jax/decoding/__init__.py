"""From encoder states to tokens: greedy decoding, beam search, timestamps, languages."""
