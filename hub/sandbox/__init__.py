"""The sandbox: a provider and its customers in one process, for the demo, the tests and the fault rig
(docs/sandbox.md)."""
