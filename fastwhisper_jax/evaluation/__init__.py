"""Error rates of transcripts: normalisers, word and character errors, reports."""
