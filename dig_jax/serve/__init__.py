"""What a person types to have a model answer over HTTP, as OpenAI's clients ask.

__main__   the command: what is checked before anything is read; server: what it runs
app        routes, and who may use them; chat: a request read, asked, answered whole or as it comes
http       bodies and connections that are too large or take too long
wanted     a request's fields; messages: its conversation and pictures; limits: what is too much
asking     a request as a group of the engine; shapes: the static shapes that are compiled
worker     the thread that answers; metrics: what it tells of itself
answers    response bodies; texts: tokens as thoughts, words and stops
refusal    errors in OpenAI's form
example    a pair that anybody may ask about; page.html: the page

Imports: common, config, engine, inputs, model, run.
"""
