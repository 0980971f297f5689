"""Matrices as products and sums of smaller or sparser ones."""
