"""From a public call to what computes it: argument checks, operator registration, CPU batches, FFT tiles."""
