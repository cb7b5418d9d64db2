"""What readers see: plots, the head picker, claims and the staged book."""
