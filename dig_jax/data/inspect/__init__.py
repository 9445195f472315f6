"""What a corpus is like: numbers, pictures, and what it gives away without learning.

stats        histograms, overlap, the baseline; survey, stats_text: read and put into words
show         a contact sheet in HTML; sheet, heat, tags: its parts
baseline     boxes where two pictures differ

Imports: common, data.corpus, data.records, data.scene.
"""
