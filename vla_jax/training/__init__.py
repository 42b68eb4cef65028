"""From a recipe and a source to a trained model.

`step.py` is the one jit-compiled update all recipes share, `loop.py` runs it, `checkpoints.py` saves and
restores it with orbax, `tracking.py` writes what it logs, `workdir.py` guards the directory it all goes to,
`assembly.py` builds the parts from a configuration, and `configuration.py` holds the defaults.
"""
