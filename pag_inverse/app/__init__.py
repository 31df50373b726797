"""A page to try restorations in a browser: plain functions of a visitor's choices, and a thin layout above them."""
