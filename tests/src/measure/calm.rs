//! How much of its time the machine was taken away: a virtual machine stands still while its host runs others,
//! and no delay of ours is measured then.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// More than this and a row that failed is measured again, percent of the time of all CPUs.
const CALM_PERCENT: f64 = 0.1;
/// How long is waited for a calm second.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first line of `/proc/stat` at some time (`proc_stat(5)`); zero where it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    all: u64,
    stolen: u64,
}

impl CpuTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        fs::read_to_string("/proc/stat").map(|text| Self::read(&text)).unwrap_or_default()
    }

    fn read(text: &str) -> Self {
        let words = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
        // user, nice, system, idle, iowait, irq, softirq, steal; the guests' time after it is in the user's.
        let times: Vec<u64> = words.take(8).map(|word| word.parse().unwrap_or(0)).collect();
        Self { all: times.iter().sum(), stolen: times.get(7).copied().unwrap_or(0) }
    }

    /// Percent of the time since then that the host gave to others.
    #[must_use]
    pub fn stolen_since_percent(self) -> f64 {
        Self::now().stolen_percent(self)
    }

    #[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
    fn stolen_percent(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 * 100.0 / all as f64
    }
}

/// Whether a row that failed says nothing about the fault.
#[must_use]
pub fn is_disturbed(stolen_percent: f64) -> bool {
    stolen_percent > CALM_PERCENT
}

/// Waits for a second in which the machine is left alone, but not for ever.
pub fn wait() {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let before = CpuTime::now();
        thread::sleep(Duration::from_secs(1));
        if !is_disturbed(before.stolen_since_percent()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_all_time() {
        let before = CpuTime::read("cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
        assert_eq!(before, CpuTime { all: 100, stolen: 10 });
        let after = CpuTime::read("cpu  10 0 10 160 0 0 0 20 5 0");
        assert!((9.99..10.01).contains(&after.stolen_percent(before)));
        assert!(!is_disturbed(CpuTime::read("").stolen_percent(before)));
    }
}
