"""What was measured, as one page that opens anywhere: an HTML file that refers to nothing else.

shell        the page, its blocks; whatever is not markup is escaped
bars         numbers with their intervals as pictures
lines        metrics over steps as pictures
picture      small copies of pictures, boxes drawn over them
facts        fields of several sides beside one another, what differs marked
results      benchmark scores, differences between two, one benchmark's details
answers      a question with its picture and what each side answered
runs         a run: held-out scores, curves, cost, settings, pairs
run_folder   what a run folder holds, read for `runs`

Imports: common, config, data.feed, pictures, run, scoring.
"""
