"""Matrix-free linear algebra: spectra, traces and log-determinants; knows no network."""
