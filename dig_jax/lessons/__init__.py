"""What a supervised run learns from: pairs and questions with their true answers, as rows.

answers   what should be written, and what each of its tokens weighs
cells     what cells of two pictures show: dense labels
asked     what a question's words mean: dense labels
shown     what the pictures of questions show
augment   pairs made into other pairs whose labels are true
pairs     difference pairs as rows of a lesson
questions questions of benchmarks as rows of a lesson, on a few static shapes
feed      the lessons of a run, step by step

Imports: benchmarks, boxes, common, config, data.feed, data.records, data.scene, inputs, learner,
model.
"""
