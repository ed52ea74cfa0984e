"""What waiting costs: this client and its peers against one fake service, on this machine.

`python -m benchmarks` prints the tables. Nothing here is part of the package; its tests see to it
that the pages made of the figures agree with them, and measure no time.
"""
