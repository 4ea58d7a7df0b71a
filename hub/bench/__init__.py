"""`hub bench`: what the hot paths cost, as ratios against a bare limit measured in the same run.

Absolute figures swing with the machine; a ratio between two rows of one run is a finding. Everything runs on
loopback against throw-away servers with fsync on.
"""
