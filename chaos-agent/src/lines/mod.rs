//! Private devices: the normaliser (and later the delay line).

mod normaliser;

pub use normaliser::Normaliser;
