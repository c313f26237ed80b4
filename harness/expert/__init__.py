"""A scripted expert with privileged state: known poses in, OSC actions out, nothing a robot's controller could not do."""
