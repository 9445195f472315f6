"""What a person types to measure a model on benchmarks, and to tell whether two differ.

__main__     the command and its verbs
listing      list, questions: what is there, and what is asked
run          run: a model answers, and is scored; choice, asking, store beside it
score        score: anybody's answers by the rules alone; told: how these were made
compare      compare: two and more results, paired; pairing: which questions they share
report       report: results as one page; cards: a question and what each side answered
folders      result folders, and what sides are called; places: what a report is about
outputs      files that can be written, before anything is read for them

Imports: benchmarks, common, config, engine, inputs, mesh, pages, run, scoring.
"""
