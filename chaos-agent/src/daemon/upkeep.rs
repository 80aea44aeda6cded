//! How often what is armed is looked after: the more there is of it, the more seldom.

use std::time::Duration;

/// One part in so many of the time goes into it at most.
const SHARE: u32 = 100;
/// However long it takes, at most so many times the least pause lies between two rounds.
const MOST: u32 = 10;

/// What the last rounds took.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    last: Duration,
    usual: Duration,
}

impl Upkeep {
    /// A round took so long. One in which something happened takes longer, and says nothing about the next.
    pub(super) fn took(&mut self, time: Duration) {
        self.usual = time.min(self.last);
        self.last = time;
    }

    /// Until the next round, at least `least`.
    pub(super) fn pause(&self, least: Duration) -> Duration {
        self.usual.saturating_mul(SHARE).clamp(least, least * MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(50);

    fn pause(rounds_us: &[u64]) -> u128 {
        let mut upkeep = Upkeep::default();
        for us in rounds_us {
            upkeep.took(Duration::from_micros(*us));
        }
        upkeep.pause(LEAST).as_millis()
    }

    #[test]
    fn few_faults_are_looked_after_as_often_as_can_be() {
        assert_eq!(pause(&[]), 50);
        assert_eq!(pause(&[300; 5]), 50);
    }

    #[test]
    fn many_take_a_hundredth_of_the_time() {
        assert_eq!(pause(&[2_000; 5]), 200);
        assert_eq!(pause(&[1_000_000; 5]), 500);
    }

    #[test]
    fn one_long_round_delays_nothing() {
        assert_eq!(pause(&[300, 300, 80_000]), 50);
        assert_eq!(pause(&[300, 80_000, 300]), 50);
    }
}
