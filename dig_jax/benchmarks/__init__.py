"""A benchmark score means what its authors meant: questions, readers, scoring rules.

question     one question and where its pictures are
catalog      the benchmarks: files, rows to expect, sources, suites; entry: one of them
sources      which of a benchmark's files are there, and which are read
questions    a benchmark's questions from a folder of its files, checked; their digest
tables       rows of parquet, TSV, JSON and JSON lines; picture_cells: pictures in all their forms
values       a row's columns as texts, letters, numbers and boxes; options: those within a text
prompts      a question as the model is asked it
pope, ...    one file per family: its columns become questions
readings     an answer's text becomes a word, a letter, boxes, or nothing
scored       an answer beside its question: right or not
aggregate    each benchmark's own rule from answers to scores
result       a scored benchmark as a file, and back

Imports: boxes, common, inputs, scoring.
"""
