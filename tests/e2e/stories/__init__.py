"""The stories of the failure table, by what fails in them."""
