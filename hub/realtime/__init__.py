"""Live sessions over ``/ws``: the event log, as it grows, on every connected screen."""
