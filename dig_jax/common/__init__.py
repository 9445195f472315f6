"""Texts, files and terminals: what any program has, and nothing of what this one does.

typed        dataclass trees as text: checks, JSON, overrides, differences
files        whole or not there at all, a temporary name, JSON with a remedy
sealed       JSON objects that tell whether they were changed
rows         rows of JSON that vouch for those before them
json_files   JSON that others wrote: an object, its values with type and range
fields       ranges of numbers and places on disk, said beside a dataclass's field
arrow        the door to pyarrow
userfile     Python files that a user wrote, their mistakes told as the user's
addresses    a folder of this machine or of a bucket
commandline  --set, the width of a printed line, errors without a traceback
verbs        a command of several verbs, each a module
progress     how far a long job is
machine      the processor's family, running processes
parallel     one function over several cores

Imports: nothing of dig_jax.
"""
