"""Networks with fewer parameters: convolutions whose weights are products and sums of smaller things."""
