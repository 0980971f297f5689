"""KroSBL for OFDM uplinks in Sionna; needs the extra `unfoldkit[sionna]`."""
