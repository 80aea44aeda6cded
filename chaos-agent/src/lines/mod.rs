//! Private devices: the normaliser (and later the delay line).
