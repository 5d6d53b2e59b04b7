"""Models inside other programs, one file each."""
