"""The pocket world: fictional facts, tiny models that are really trained, and the demo.

language.py, world.py        its words and sentences, and the facts that a seed draws
llama.py, train_strong.py    the models; the strong ones are shipped (strong/, strong-early/)
episodes.py                  what the strong model was trained on
demo.py                      the whole method in all three domains
"""
