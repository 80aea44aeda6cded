//! Private devices: the normaliser, and the delay line with its thread.

mod delay_line;
mod doze;
mod frame;
mod heap;
mod ledger;
mod normaliser;
mod pace;
mod pool;
pub mod scheduling;
mod serve;
mod stats;
mod thread;

pub use delay_line::DelayLine;
pub use normaliser::Normaliser;
pub use pace::WINDOW_NS;
pub use scheduling::Scheduling;
pub use stats::{LATENESS_NS, LineStats};
pub use thread::{LineId, LineOptions, LineThread, RuleWatch};
