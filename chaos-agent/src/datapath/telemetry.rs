//! Reads what the programs counted and logged.

use aya::Ebpf;
use aya_log::EbpfLogger;
use chaos_common::abi::{COUNTS, Count, Counters, Delays, Tally};

/// One rule's counters in one direction, all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    tallies: [Tally; COUNTS],
    delays: Delays,
}

impl DirectionCounters {
    /// Adds the CPUs up.
    pub(super) fn sum<'a>(cpus: impl IntoIterator<Item = &'a Counters>) -> Self {
        let mut total = Self::default();
        for cpu in cpus {
            for (sum, tally) in total.tallies.iter_mut().zip(cpu.tallies) {
                sum.packets += tally.packets;
                sum.bytes += tally.bytes;
            }
            total.delays.sum_ns += cpu.delays.sum_ns;
            for (sum, packets) in total.delays.classes.iter_mut().zip(cpu.delays.classes) {
                *sum += packets;
            }
        }
        total
    }

    /// How long the rule made packets wait.
    #[must_use]
    pub const fn delays(&self) -> Delays {
        self.delays
    }

    /// What was counted for this reason.
    #[must_use]
    pub fn of(&self, what: Count) -> Tally {
        self.tallies.get(what as usize).copied().unwrap_or_default()
    }
}

/// The kernel side's log records, read when [`KernelLog::flush`] is called.
pub struct KernelLog(EbpfLogger<Forward>);

impl KernelLog {
    /// Reads the log of the tables that `ebpf` shares; call it for one instance.
    pub(super) fn open(ebpf: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init_with_logger(ebpf, Forward) {
            Ok(logger) => Some(Self(logger)),
            Err(error) => {
                tracing::warn!("the kernel side's log cannot be read: {error}");
                None
            }
        }
    }

    /// Hands what has come on to `tracing`.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

/// Turns the records into `tracing` events.
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        match record.level() {
            log::Level::Error => tracing::error!("kernel: {}", record.args()),
            log::Level::Warn => tracing::warn!("kernel: {}", record.args()),
            log::Level::Info => tracing::info!("kernel: {}", record.args()),
            log::Level::Debug | log::Level::Trace => tracing::debug!("kernel: {}", record.args()),
        }
    }

    fn flush(&self) {}
}
