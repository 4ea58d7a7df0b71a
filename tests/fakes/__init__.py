"""Small servers and clients that stand around the product in tests."""
