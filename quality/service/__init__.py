"""The corpus quality service: what runs hold, texts scored with their models, builds and comparisons started and watched.

It is the roof of the house: it reads run directories, scores in its own process, and starts everything that writes a run as the
command in a child process. Nothing imports it but the command line.
"""
