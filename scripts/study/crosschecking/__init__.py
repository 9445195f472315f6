"""What `scripts.study.crosscheck` compares: phrasings of answers, and how toolkits read them."""
