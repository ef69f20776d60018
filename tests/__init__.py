"""The tests: `unit` needs nothing but Python, `servers` starts real servers, `e2e` runs the whole program against them."""
