"""Numbers that say how good restorations are: of pairs of pictures, of sets of pictures, and their uncertainty."""
