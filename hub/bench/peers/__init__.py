"""What the product is compared with: small servers of other make, each a program of its own.

Each takes one JSON argument (at least {"port": …}) and answers on 127.0.0.1. Those that need packages the
product does not have run in an environment of their own (hub/bench/install.py) and import nothing of ours.
"""
