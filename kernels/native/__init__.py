"""C sources that a CPU runs: their compiler, and the 3x3 convolutions; `sbl.em` has the EM loop."""
