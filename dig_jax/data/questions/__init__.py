"""Questions about one picture whose answers are the plan's and the masks', never a guess.

sight        what of a picture's things can be seen, and which is nearer, further left
words        the fewest words that mean one thing and no other
asked        one question with its answer; scene: what it is asked about
existence    is there a red cube: random, popular and adversarial objects
referring    expressions that mean one thing, with its box
counts       how many cubes
depth        which is nearer to the camera, or to a third
sides        left, right, behind, in front: as statements and as questions
attributes   what colour, material, shape
twins        two nearly equal pictures: one question with two answers
kinds        all of them by name; a record's questions
balance      as many of each answer; letters in equal parts
formats      questions as rows of the benchmarks' own files; files: these on a disk
shown        what every picture shows, for labels
suite        splits become a folder of all of them; apart: no scene that was trained on
command      the verb

Imports: common, data.corpus, data.records, data.scene.
"""
