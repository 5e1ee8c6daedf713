"""Compare texts: words, sentences, languages, leaks, near-duplicates."""
