//! Packets of a link (`rate`) keep their distances when the line was late: a real link that stood still does
//! not send what it held all at once.

use std::collections::{HashMap, VecDeque};

/// Whose frames follow each other: line and slot of the rule, and whether they come in.
pub(super) type Pace = (u16, u16, bool);

/// In this time a link never sends more than its rate and its burst allow, and one frame.
pub const WINDOW_NS: u64 = 10_000_000;

/// What each link sent.
#[derive(Debug, Default)]
pub(super) struct Paces(HashMap<Pace, Sent>);

/// The last frames, together at most what a window allows.
#[derive(Debug, Default)]
struct Sent {
    frames: VecDeque<(u64, u64)>,
    bytes: u64,
    /// When the window is free for one more.
    free_ns: u64,
}

impl Paces {
    /// When there is room for another frame in the window.
    pub(super) fn free_ns(&self, pace: Pace) -> u64 {
        self.0.get(&pace).map_or(0, |sent| sent.free_ns)
    }

    /// A frame of so many bytes was written before `at_ns`, on a link that sends `most_bytes` in a window.
    pub(super) fn wrote(&mut self, pace: Pace, (at_ns, bytes): (u64, u64), most_bytes: u64) {
        let sent = self.0.entry(pace).or_default();
        sent.frames.push_back((at_ns, bytes));
        sent.bytes += bytes;
        while sent.bytes > most_bytes {
            let Some((first_ns, first_bytes)) = sent.frames.pop_front() else { return };
            sent.bytes -= first_bytes;
            sent.free_ns = first_ns + WINDOW_NS;
        }
    }

    /// Forgets those that hold nothing back any more.
    pub(super) fn forget(&mut self, now_ns: u64, holds: impl Fn(u16) -> bool) {
        let is_recent = |(at_ns, _): &(u64, u64)| at_ns + WINDOW_NS > now_ns;
        self.0.retain(|(_, slot, _), sent| holds(*slot) || sent.frames.back().is_some_and(is_recent));
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const PACE: Pace = (0, 1, false);
    const BYTES: u64 = 1500;
    /// 13.3 frames are what the link sends in a window.
    const GAP_NS: u64 = 750_000;
    const MOST_BYTES: u64 = WINDOW_NS * BYTES / GAP_NS;

    /// Frames that come every gap, written as soon as they are due and there is room; the line stands still
    /// during `stops`. When each was written.
    fn written(count: u64, stops: &[Range<u64>]) -> Vec<u64> {
        let mut paces = Paces::default();
        let mut now_ns = 0;
        let one = |number: u64| {
            now_ns = (number * GAP_NS).max(paces.free_ns(PACE)).max(now_ns);
            now_ns = stops.iter().find(|stop| stop.contains(&now_ns)).map_or(now_ns, |stop| stop.end);
            now_ns += 2_000;
            paces.wrote(PACE, (now_ns, BYTES), MOST_BYTES);
            now_ns
        };
        (1..=count).map(one).collect()
    }

    /// 13.3 frames of a window and one.
    fn no_window_holds_more(times: &[u64]) -> bool {
        times.windows(15).all(|several| several[14] - several[0] >= WINDOW_NS)
    }

    #[test]
    fn in_time_they_leave_when_they_are_due() {
        let late = written(10_000, &[]).iter().zip(1..).map(|(at, number)| at - number * GAP_NS).max();
        assert_eq!(late, Some(2_000));
    }

    #[test]
    fn after_a_stop_no_window_holds_more_and_the_delay_is_made_up_for() {
        let times = written(1_000, std::slice::from_ref(&(10_000_000..30_000_000)));
        assert!(no_window_holds_more(&times));
        assert_eq!(times[999] - 1_000 * GAP_NS, 2_000, "the stop is not held against it for ever");
    }

    #[test]
    fn however_often_it_stops_no_window_holds_more() {
        // At every place of a window; as much as can be made up for, then far more.
        for (first, most_ns) in (1..20).flat_map(|first| [(first, 1_000_000), (first, 15_000_000)]) {
            let stop = |n: u64| 7_300_000 * n..7_300_000 * n + (n * 7_919_003) % most_ns;
            let stops: Vec<_> = (0..50).map(|n| stop(first + n * 5)).collect();
            assert!(no_window_holds_more(&written(2_000, &stops)));
        }
    }

    #[test]
    fn each_link_has_its_own_pace_and_forgets() {
        let mut paces = Paces::default();
        paces.wrote(PACE, (9_000_000, BYTES), BYTES);
        assert_eq!(paces.free_ns(PACE), 0, "as much as a window allows, and one frame");
        paces.wrote(PACE, (9_500_000, BYTES), BYTES);
        assert_eq!((paces.free_ns(PACE), paces.free_ns((0, 1, true))), (19_000_000, 0));
        paces.forget(19_400_000, |_| false);
        paces.forget(19_500_000, |slot| slot == PACE.1);
        assert_eq!(paces.free_ns(PACE), 19_000_000);
        paces.forget(19_500_000, |_| false);
        assert_eq!(paces.free_ns(PACE), 0);
    }
}
